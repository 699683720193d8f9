"""petastorm -> tf.data."""

from typing import TYPE_CHECKING

from cnnlib import import_on_use

if TYPE_CHECKING:
    from cnnlib.feed.dataset import make_dataset

__all__ = ["make_dataset"]

__getattr__ = import_on_use(__name__, make_dataset="dataset")

# Imports neither TensorFlow nor MLflow, but for these modules: tests/unit/test_import_rules.py reads this.
LIGHT_BUT_FOR = ("data_wait", "dataset", "decoding", "replay")
