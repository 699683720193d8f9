"""A checkpoint of every epoch: all that training needs to go on, written whole or not at all."""

import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras

import cnnlib.sealed.frozen.grouped_convolution  # noqa: F401  (Keras looks it up where a model has it)
from cnnlib.errors import ConfigError

MODEL_FILE = "model.keras"
STATE_FILE = "state.json"

# One value an epoch, by Keras' name of the metric.
History = dict[str, list[float]]


@dataclass(frozen=True)
class TrainingState:
    """Where training stands after an epoch (from 1), beside the model and its optimizer.

    `history` has the metrics of every epoch so far: early stopping and the best epoch follow from it, so they go on
    as if nothing had happened. `settings` and `fingerprint` (of the image set) say what the checkpoint belongs to.
    """

    epoch: int
    history: History
    best_epoch: int
    best_value: float
    seed: int
    fingerprint: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def logs(self, epoch: int) -> dict[str, float]:
        """The metrics of one epoch (from 1)."""
        return {name: values[epoch - 1] for name, values in self.history.items()}


def write_checkpoint(folder: Path, model: keras.Model, state: TrainingState) -> Path:
    """Write `folder`/epoch-0003 and give its path. It appears under that name only when all of it is on the disk."""
    final = checkpoint_folder(folder, state.epoch)
    temporary = final.with_name(f".{final.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed while it wrote
    temporary.mkdir(parents=True)
    try:
        model.save(temporary / MODEL_FILE)
        (temporary / STATE_FILE).write_text(json.dumps(asdict(state)))
        for path in (temporary / MODEL_FILE, temporary / STATE_FILE, temporary):
            _sync(path)
        if final.exists():
            # The same epoch of an earlier try; a rename cannot replace a folder that holds files.
            shutil.rmtree(final)
        os.rename(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync(folder)
    return final


def remove_checkpoints(folder: Path, up_to: int) -> None:
    """Remove the checkpoints of the epochs up to this one (from 1)."""
    for path in folder.glob("epoch-*"):
        if path.name <= checkpoint_folder(folder, up_to).name:
            # Under another name first: half a checkpoint must not look like one.
            doomed = path.with_name(f".{path.name}.old")
            os.rename(path, doomed)
            shutil.rmtree(doomed)


def read_checkpoint(folder: Path) -> tuple[keras.Model, TrainingState]:
    """Load a checkpoint: the compiled model with its optimizer, and the state.

    Raises ConfigError for a folder that is no checkpoint.
    """
    state = read_state(folder)
    return keras.saving.load_model(folder / MODEL_FILE), state


def read_state(folder: Path) -> TrainingState:
    """Read a checkpoint's state alone. Raises ConfigError for a folder that is no checkpoint."""
    try:
        return TrainingState(**json.loads((folder / STATE_FILE).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{folder} is not a checkpoint of this sparkcnn ({error}); train anew") from error


def checkpoint_folder(folder: Path, epoch: int) -> Path:
    """Where the checkpoint of an epoch (from 1) lies.

    >>> checkpoint_folder(Path("checkpoints"), 3).as_posix()
    'checkpoints/epoch-0003'
    """
    return folder / f"epoch-{epoch:04d}"


def best_epoch(values: Sequence[float], direction: str = "max") -> int:
    """The epoch (from 1) with the best value, by `direction` "max" or "min"; the earliest of equals.

    A value that is not a number is the worst.

    >>> best_epoch([0.90, 0.97, 0.95, 0.97]), best_epoch([float("nan"), 0.3, 0.1, 0.2], "min")
    (2, 3)
    """
    sign = 1 if direction == "max" else -1

    def goodness(epoch: int) -> float:
        value = values[epoch]
        return -math.inf if math.isnan(value) else sign * value

    return max(range(len(values)), key=goodness) + 1


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
