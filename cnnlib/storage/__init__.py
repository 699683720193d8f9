"""Folders at any URI, and the Parquet part files that tasks write into them."""

# No module here imports TensorFlow or MLflow; tests/unit/test_import_rules.py checks this.
LIGHT_BUT_FOR = ()
