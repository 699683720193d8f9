"""Images and a registered model -> predictions."""

from typing import TYPE_CHECKING

from cnnlib import import_on_use

if TYPE_CHECKING:
    from pipelines.score.flow import score

__all__ = ["score"]

__getattr__ = import_on_use(__name__, score="flow")

# Imports neither TensorFlow nor MLflow, but for these modules: tests/unit/test_import_rules.py reads this.
LIGHT_BUT_FOR = ("flow",)
