"""Entry points: `sparkcnn NAME …` and `spark-submit jobs/NAME.py …`.

A job reads its settings, makes one call into `pipelines`, and prints tables. `jobs.catalogue` lists all jobs.
"""
