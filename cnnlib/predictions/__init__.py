"""The predictions set that scoring publishes, and the work of each task of a scoring."""

# Imports neither TensorFlow nor MLflow: tests/unit/test_import_rules.py reads this.
LIGHT_BUT_FOR = ()
