"""Make an image set of a collection of images."""

from typing import TYPE_CHECKING

from cnnlib import import_on_use

if TYPE_CHECKING:
    from pipelines.ingest.flow import ingest

__all__ = ["ingest"]

__getattr__ = import_on_use(__name__, ingest="flow")

# Imports neither TensorFlow nor MLflow: tests/unit/test_import_rules.py reads this.
LIGHT_BUT_FOR = ()
