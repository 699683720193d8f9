"""The state of a training after each epoch, and the checkpoint that keeps it. A checkpoint is complete or absent."""

import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras

import cnnlib.sealed.frozen.grouped_convolution  # noqa: F401  (registers a layer that some models have)
from cnnlib.config import TrainSettings, flatten
from cnnlib.errors import ConfigError
from cnnlib.image_set.contract import ImageSet

MODEL_FILE = "model.keras"
STATE_FILE = "state.json"

# Metric name as Keras has it -> one value per epoch.
History = dict[str, list[float]]


@dataclass(frozen=True)
class TrainingState:
    """The state of a training after an epoch (from 1), beside the model and its optimizer.

    `history` has the metrics of all epochs so far. Early stopping and the best epoch follow from it, so a resumed
    training decides as an uninterrupted one would. `settings` and `fingerprint` (of the image set) say what the
    checkpoint belongs to.
    """

    epoch: int
    history: History
    best_epoch: int
    best_value: float
    seed: int
    fingerprint: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def logs(self, epoch: int) -> dict[str, float]:
        """Return the metrics of one epoch (from 1)."""
        return {name: values[epoch - 1] for name, values in self.history.items()}


def state_after(epoch: int, history: History, image_set: ImageSet, settings: TrainSettings) -> TrainingState:
    """Return the state of a training after an epoch (from 1)."""
    best = best_epoch_of(history, settings)
    return TrainingState(
        epoch=epoch,
        history=history,
        best_epoch=best,
        best_value=history[settings.train.monitor][best - 1],
        seed=settings.train.seed,
        fingerprint=image_set.fingerprint,
        settings=flatten(settings),
    )


def best_epoch_of(history: History, settings: TrainSettings) -> int:
    """Return the epoch (from 1) that is best by `train.monitor` and `train.direction`."""
    return best_epoch(history[settings.train.monitor], settings.train.best_direction)


def best_epoch(values: Sequence[float], direction: str = "max") -> int:
    """Return the epoch (from 1) with the best value, by `direction` "max" or "min".

    Of equal values the earliest is best. NaN is the worst value.

    >>> best_epoch([0.90, 0.97, 0.95, 0.97]), best_epoch([float("nan"), 0.3, 0.1, 0.2], "min")
    (2, 3)
    """
    sign = 1 if direction == "max" else -1

    def goodness(epoch: int) -> float:
        value = values[epoch]
        return -math.inf if math.isnan(value) else sign * value

    return max(range(len(values)), key=goodness) + 1


def checkpoint_folder(folder: Path, epoch: int) -> Path:
    """Return the folder of an epoch's checkpoint (from 1).

    >>> checkpoint_folder(Path("checkpoints"), 3).as_posix()
    'checkpoints/epoch-0003'
    """
    return folder / f"epoch-{epoch:04d}"


def write_checkpoint(folder: Path, model: keras.Model, state: TrainingState) -> Path:
    """Write a checkpoint, for example `folder`/epoch-0003, and return its path.

    The checkpoint gets its name only when it is completely on the disk.
    """
    final = checkpoint_folder(folder, state.epoch)
    temporary = final.with_name(f".{final.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # left by a process that was killed while it wrote
    temporary.mkdir(parents=True)
    try:
        model.save(temporary / MODEL_FILE)
        (temporary / STATE_FILE).write_text(json.dumps(asdict(state)))
        for path in (temporary / MODEL_FILE, temporary / STATE_FILE, temporary):
            _sync(path)
        if final.exists():
            # An earlier attempt wrote the same epoch. A rename cannot replace a folder that holds files.
            shutil.rmtree(final)
        os.rename(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync(folder)
    return final


def remove_checkpoints(folder: Path, up_to: int) -> None:
    """Remove the checkpoints of all epochs up to and including this one (from 1)."""
    for path in folder.glob("epoch-*"):
        if path.name <= checkpoint_folder(folder, up_to).name:
            # Rename it first, because half a checkpoint must not look like a checkpoint.
            doomed = path.with_name(f".{path.name}.old")
            os.rename(path, doomed)
            shutil.rmtree(doomed)


def read_checkpoint(folder: Path) -> tuple[keras.Model, TrainingState]:
    """Load the compiled model with its optimizer, and the state.

    Raises ConfigError for a folder that is not a checkpoint.
    """
    state = read_state(folder)
    return keras.saving.load_model(folder / MODEL_FILE), state


def read_state(folder: Path) -> TrainingState:
    """Read only the state of a checkpoint. Raises ConfigError for a folder that is not a checkpoint."""
    try:
        return TrainingState(**json.loads((folder / STATE_FILE).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{folder} is not a checkpoint of this sparkcnn ({error}); start a new training") from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
