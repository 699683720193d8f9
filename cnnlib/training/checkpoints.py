"""A checkpoint of every epoch: written whole or not at all, published first and called the latest after."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras

MODEL_FILE = "model.keras"

# (epoch, folder): hands a finished checkpoint on, to the MLflow run say.
Publish = Callable[[int, Path], None]


class EpochCheckpoint(keras.callbacks.Callback):
    """Saves model and optimizer after every epoch as `folder`/epoch-0001/model.keras, then publishes it.

    A checkpoint folder appears under its final name only when all of it is on the disk.
    """

    def __init__(self, folder: Path, publish: Publish) -> None:
        super().__init__()
        self._folder = folder
        self._publish = publish

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Save epoch number `epoch` + 1 (Keras counts from 0, people and MLflow from 1)."""
        number = epoch + 1
        final = checkpoint_folder(self._folder, number)
        temporary = final.with_name(f".{final.name}.tmp")
        temporary.mkdir(parents=True)
        model_path = temporary / MODEL_FILE
        self.model.save(model_path)
        _sync(model_path)
        os.rename(temporary, final)
        _sync(final.parent)
        self._publish(number, final)


def checkpoint_folder(folder: Path, epoch: int) -> Path:
    """Where the checkpoint of an epoch (from 1) lies.

    >>> checkpoint_folder(Path("checkpoints"), 3).as_posix()
    'checkpoints/epoch-0003'
    """
    return folder / f"epoch-{epoch:04d}"


def best_epoch(values: Sequence[float]) -> int:
    """The epoch (from 1) with the highest value; the earliest of equals. `values` has one an epoch.

    >>> best_epoch([0.90, 0.97, 0.95, 0.97])
    2
    """
    return max(range(len(values)), key=values.__getitem__) + 1


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
