"""The sealed model: weights, the facts that they need, and the code that decodes and predicts with them."""

# Imports neither TensorFlow nor MLflow: tests/unit/test_import_rules.py reads this.
LIGHT_BUT_FOR = ()
