"""The models: one file per family of architectures, a catalogue of them, and the one way to build a model."""

from typing import TYPE_CHECKING

from cnnlib import import_on_use

if TYPE_CHECKING:
    from cnnlib.models.build import build_model
    from cnnlib.models.catalogue import ARCHITECTURES

__all__ = ["ARCHITECTURES", "build_model"]

__getattr__ = import_on_use(__name__, needs_tensorflow=True, ARCHITECTURES="catalogue", build_model="build")
