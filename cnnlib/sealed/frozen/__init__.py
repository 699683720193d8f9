"""The decoder and classifier that travel inside every registered model. They import nothing else of this project."""

# Imports neither TensorFlow nor MLflow, but for these modules: tests/unit/test_import_rules.py reads this.
LIGHT_BUT_FOR = ("grouped_convolution",)
