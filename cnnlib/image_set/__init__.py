"""The image set: what ingest publishes, training feeds on and scoring reads."""

from cnnlib.image_set.contract import ImageSet, open_image_set

__all__ = ["ImageSet", "open_image_set"]

# Imports neither TensorFlow nor MLflow: tests/unit/test_import_rules.py reads this.
LIGHT_BUT_FOR = ()
