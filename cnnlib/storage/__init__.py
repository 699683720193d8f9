"""Folders at any URI, and the Parquet files that tasks write into them."""

# Imports neither TensorFlow nor MLflow: tests/unit/test_import_rules.py reads this.
LIGHT_BUT_FOR = ()
