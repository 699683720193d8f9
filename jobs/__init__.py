"""Entry points: `sparkcnn NAME …` and `spark-submit jobs/NAME.py …`.

Each takes settings, makes one call into pipelines, and ends with a table.
"""
