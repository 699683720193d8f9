"""What ingest and score can read: one file a format, each only listing and parsing."""

# Imports neither TensorFlow nor MLflow: tests/unit/test_import_rules.py reads this.
LIGHT_BUT_FOR = ()
