"""Evaluate a registered model, and promote a challenger to champion if it passes every gate."""

from typing import TYPE_CHECKING

from cnnlib import import_on_use

if TYPE_CHECKING:
    from pipelines.evaluate.flow import accuracy, evaluate

__all__ = ["accuracy", "evaluate"]

__getattr__ = import_on_use(__name__, accuracy="flow", evaluate="flow")
