"""Train many times: a study that searches for the best settings, or a comparison of the values of one setting."""

from typing import TYPE_CHECKING

from cnnlib import import_on_use

if TYPE_CHECKING:
    from pipelines.tune.flow import tune

__all__ = ["tune"]

__getattr__ = import_on_use(__name__, needs_tensorflow=True, tune="flow")
