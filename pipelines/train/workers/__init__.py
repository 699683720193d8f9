"""Training on Spark's workers: the ranks' start, connections, progress and end."""
