"""Check everything that a training needs, and plan a training on many workers."""

from typing import TYPE_CHECKING

from cnnlib import import_on_use

if TYPE_CHECKING:
    from pipelines.doctor.flow import examine

__all__ = ["examine"]

__getattr__ = import_on_use(__name__, examine="flow")

# Imports neither TensorFlow nor MLflow, except in these modules: tests/unit/test_import_rules.py reads this.
LIGHT_BUT_FOR = ("plan",)
