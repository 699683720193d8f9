"""The formats that ingest and score can read: one module per format, which finds files and parses them, no more."""

# Imports neither TensorFlow nor MLflow: tests/unit/test_import_rules.py reads this.
LIGHT_BUT_FOR = ()
