"""Python's garbage collection, made rarer where it costs much and finds nothing.

TensorFlow, MLflow and Spark make a million objects while they are imported. All of them stay, and Python would visit
them again and again.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# Python's own thresholds are 700, 10 and 10. To import all that a training needs took 0.9 of the time with these.
_THRESHOLDS = 50_000, 20, 100


def collect_garbage_rarely() -> None:
    """Collect after 50,000 new objects. Call this at the start of a process that is our own."""
    gc.set_threshold(*_THRESHOLDS)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Pause garbage collection within the block. To import TensorFlow took 0.75 to 0.89 of the time in such a block."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
