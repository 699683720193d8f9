"""A user's model, sent to tasks as with --py-files. A task waits until a test opens the gate, then builds it."""

import os
import time
from pathlib import Path

import keras
from pyspark import TaskContext


def model(image_shape: tuple[int, int, int], classes: int, *, folder: str) -> keras.Model:
    """Write the id of the waiting process into the folder, and wait until the folder has a file `open`."""
    gate = Path(folder, "open")
    if TaskContext.get() is not None:
        Path(folder, f"waits {os.getpid()}").touch()
        while not gate.exists():
            time.sleep(0.05)
    return keras.Sequential(
        [keras.Input(image_shape), keras.layers.Flatten(), keras.layers.Dense(8, "relu"), keras.layers.Dense(classes)]
    )
