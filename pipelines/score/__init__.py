"""Images and a registered model -> predictions."""

from typing import TYPE_CHECKING

from cnnlib import import_on_use

if TYPE_CHECKING:
    from pipelines.score.flow import score

__all__ = ["score"]

__getattr__ = import_on_use(__name__, score="flow")

# Modules that may import TensorFlow or MLflow; the others must not. Read by tests/unit/test_import_rules.py.
LIGHT_BUT_FOR = ("flow",)
