"""Feed the images of an image set from Parquet, through petastorm, to tf.data."""

from typing import TYPE_CHECKING

from cnnlib import import_on_use

if TYPE_CHECKING:
    from cnnlib.feed.dataset import make_dataset

__all__ = ["make_dataset"]

__getattr__ = import_on_use(__name__, needs_tensorflow=True, make_dataset="dataset")

# All modules but these import neither TensorFlow nor MLflow; tests/unit/test_import_rules.py checks this.
LIGHT_BUT_FOR = ("data_wait", "dataset", "decoding", "replay")
