"""The image set: ingest publishes it, training reads it through the feed, and scoring can read it."""

from cnnlib.image_set.contract import ImageSet, open_image_set

__all__ = ["ImageSet", "open_image_set"]

# No module here imports TensorFlow or MLflow; tests/unit/test_import_rules.py checks this.
LIGHT_BUT_FOR = ()
