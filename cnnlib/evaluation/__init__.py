"""How good a model is: metrics, gates, corruptions and speed, without Spark."""

# Imports neither TensorFlow nor MLflow: tests/unit/test_import_rules.py reads this.
LIGHT_BUT_FOR = ()
