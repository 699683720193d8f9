"""The predictions set: what scoring publishes, and what each of its tasks does."""

# Imports neither TensorFlow nor MLflow: tests/unit/test_import_rules.py reads this.
LIGHT_BUT_FOR = ()
