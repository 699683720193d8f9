"""Trainings on images that a model learns in seconds."""

from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np

from cnnlib.config import TrainSettings
from cnnlib.image_set.contract import ImageSet
from cnnlib.training.checkpoints import TrainingState, write_checkpoint
from cnnlib.training.fit import fit_model
from tests.unit.image_sets import write_image_set

CLASSES = ("above", "below", "left")
TRAIN_ROWS, VAL_ROWS = 240, 60
# Tracing takes most of the time of such a small training. For this model it takes two thirds as long as for LeNet.
SMALL = {"name": "mlp", "options": {"units": [32]}}
LENET = {"name": "lenet"}


def striped_images(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return noise with a bright band whose position depends on the label: (rows, 16, 16, 1) uint8 and (rows,)."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 120, (rows, 16, 16, 1), dtype=np.uint8)
    labels = random.integers(0, 3, rows)
    images[labels == 0, :5] += 130
    images[labels == 1, -5:] += 130
    images[labels == 2, :, :5] += 130
    return images, labels


def striped_set(folder: Path) -> ImageSet:
    """Write an image set of striped images."""
    images, labels = striped_images(TRAIN_ROWS + VAL_ROWS)
    splits = ["train"] * TRAIN_ROWS + ["val"] * VAL_ROWS
    return write_image_set(folder, images, labels, splits, classes=CLASSES)


def settings(
    image_set, *, optimizer=None, model=None, augment=None, learning_rate: float = 1e-3, **train
) -> TrainSettings:
    """Return settings with these values in the section train; `optimizer`, `model` and `augment` are for theirs.

    The default model is SMALL, and its layers are not watched, which would take a tenth of a second per epoch.
    """
    return TrainSettings(
        data={"path": image_set.folder.uri, "shuffle_mb": 0.025},
        model=model or SMALL,
        augment=augment or {},
        train={"epochs": 2, "worker_batch_size": 32, "watch_layers": False} | train,
        optimizer={"learning_rate": learning_rate} | (optimizer or {}),
    )


@dataclass
class RecordedFit:
    """A training that records its steps, and its state after each epoch."""

    states: list[TrainingState] = field(default_factory=list)
    steps: list[tuple[int, int]] = field(default_factory=list)

    def fit(self, image_set, given: TrainSettings, *, folder: Path | None = None, **options):
        """Train. With a folder, write a checkpoint of every epoch into it."""

        def on_epoch(model: keras.Model, state: TrainingState) -> None:
            self.states.append(state)
            if folder is not None:
                write_checkpoint(folder, model, state)

        return fit_model(
            image_set,
            given,
            on_epoch=on_epoch,
            on_step=lambda done, total, note: self.steps.append((done, total)),
            **options,
        )


def history_of(image_set, given: TrainSettings) -> dict[str, list[float]]:
    _, history = RecordedFit().fit(image_set, given)
    return history
