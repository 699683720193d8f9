"""What tune and compare do besides trainings: trials in Spark's tasks, a study, and what is left of both."""
