"""A model of a user's own, which Spark's tasks wait to build until a test lets them; sent to them as --py-files."""

import os
import time
from pathlib import Path

import keras
from pyspark import TaskContext


def model(image_shape: tuple[int, int, int], classes: int, *, folder: str) -> keras.Model:
    """Say in the folder which process waits, until there is a file `open`."""
    gate = Path(folder, "open")
    if TaskContext.get() is not None:
        Path(folder, f"waits {os.getpid()}").touch()
        while not gate.exists():
            time.sleep(0.05)
    return keras.Sequential(
        [keras.Input(image_shape), keras.layers.Flatten(), keras.layers.Dense(8, "relu"), keras.layers.Dense(classes)]
    )
