"""Petastorm -> tf.data. `make_dataset` is imported where it is used: TensorFlow takes seconds to import."""

from typing import Any

__all__ = ["make_dataset"]


def __getattr__(name: str) -> Any:
    if name == "make_dataset":
        from cnnlib.feed.dataset import make_dataset

        return make_dataset
    raise AttributeError(f"module {__name__} has no attribute {name}")
