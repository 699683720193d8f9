"""Keras training: the training loop, its reports and its checkpoints."""

# Doctor and plan use these modules, so they import neither TensorFlow nor MLflow: tests/unit/test_import_rules.py reads
# this.
LIGHT = ("preconditions", "scaling")
