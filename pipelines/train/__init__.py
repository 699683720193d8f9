"""Training: image set -> MLflow run, checkpoints, registered model."""

from typing import TYPE_CHECKING

from cnnlib import import_on_use

if TYPE_CHECKING:
    from pipelines.train.flow import train

__all__ = ["train"]

__getattr__ = import_on_use(__name__, needs_tensorflow=True, train="flow")
