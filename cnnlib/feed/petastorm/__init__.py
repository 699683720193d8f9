"""All that touches petastorm: the bridge to today's Arrow, its thread pool, and the reader of row groups."""

# Imports neither TensorFlow nor MLflow: tests/unit/test_import_rules.py reads this.
LIGHT_BUT_FOR = ()
