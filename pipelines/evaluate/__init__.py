"""How good a registered model is, and whether a challenger becomes champion."""

from typing import TYPE_CHECKING

from cnnlib import import_on_use

if TYPE_CHECKING:
    from pipelines.evaluate.flow import accuracy, evaluate

__all__ = ["accuracy", "evaluate"]

__getattr__ = import_on_use(__name__, accuracy="flow", evaluate="flow")
