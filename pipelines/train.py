"""Image set -> MLflow run: every setting, every epoch's metrics and checkpoint, and the best epoch registered."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import keras
import numpy as np
from pyspark.sql import SparkSession

from cnnlib.config import TrainSettings, flatten
from cnnlib.feed.blocks import read_split
from cnnlib.imageset import ImageSet, open_image_set
from cnnlib.splits import TRAIN, VAL
from cnnlib.training.callbacks import IMAGES_PER_SECOND, EpochReport, StepReport
from cnnlib.training.checkpoints import MODEL_FILE, EpochCheckpoint, best_epoch, checkpoint_folder
from cnnlib.training.fit import MONITOR, History, fit_model
from pipelines.progress import Progress
from pipelines.registry import log_sealed_model, set_alias
from pipelines.tracking import Tracker, tracked_run


@dataclass(frozen=True)
class TrainedModel:
    """What a training leaves.

    `version` is that of the registered model, None where nothing was registered; `history` has a value an epoch of
    loss, accuracy, val_loss, val_accuracy and images_per_second; `best_epoch` counts from 1 and is what was sealed;
    `ui_command` serves the MLflow UI (None where a server does already), `run_url` is this run's page there.
    """

    run_id: str
    model_uri: str
    version: str | None
    history: History
    best_epoch: int
    ui_command: str | None
    run_url: str


def train(spark: SparkSession, settings: TrainSettings, progress: Progress | None = None) -> TrainedModel:
    """Train on an image set in one MLflow run, and register the best epoch by val accuracy.

    Raises ImageSetError, ConfigError and TrackingError before training starts.
    """
    progress = progress or Progress()
    image_set = open_image_set(settings.data.path)
    # Both must be there before a run is started that could only fail.
    image_set.split(TRAIN), image_set.split(VAL)
    with (
        tracked_run(settings.tracking, f"{settings.model.name} on {image_set.name}") as tracker,
        TemporaryDirectory(prefix="sparkcnn-checkpoints-") as temporary,
    ):
        tracker.log_settings(flatten(settings) | {"tracking.uri": tracker.uri})
        tracker.log_image_set(image_set)
        checkpoints = Path(temporary)
        history = _fit(image_set, settings, tracker, checkpoints, progress)
        best = best_epoch(history[MONITOR])
        tracker.log_best(best, MONITOR, history[MONITOR][best - 1])
        model = keras.saving.load_model(checkpoint_folder(checkpoints, best) / MODEL_FILE)
        uri, version = log_sealed_model(model, image_set, _example(image_set), register_as=settings.register.name)
        if settings.register.name and settings.register.alias and version:
            set_alias(settings.register.name, settings.register.alias, version)
    return TrainedModel(tracker.run_id, uri, version, history, best, tracker.ui_command, tracker.run_url)


def _fit(
    image_set: ImageSet, settings: TrainSettings, tracker: Tracker, checkpoints: Path, progress: Progress
) -> History:
    rates: list[float] = []

    def report(epoch: int, metrics: dict[str, float]) -> None:
        tracker.log_epoch(epoch, metrics)
        rates.append(metrics[IMAGES_PER_SECOND])
        shown = ", ".join(f"{name} {metrics[name]:.4f}" for name in ("loss", "accuracy", "val_loss", MONITOR))
        progress.say(f"epoch {epoch}/{settings.train.epochs}: {shown}, {metrics[IMAGES_PER_SECOND]:,.0f} images/s")

    rows = image_set.split(TRAIN).rows
    with progress.step(f"train {settings.model.name} on {rows:,} images") as advance:
        _, history = fit_model(
            image_set,
            settings,
            [
                EpochReport(rows, report),
                StepReport(advance),
                EpochCheckpoint(checkpoints, publish=tracker.log_checkpoint),
            ],
        )
    return history | {IMAGES_PER_SECOND: rates}


def _example(image_set: ImageSet) -> np.ndarray:
    """The first train image, (height, width, channels) uint8."""
    blocks = read_split(image_set, TRAIN)
    images, _ = next(blocks)
    blocks.close()
    return images[0]
