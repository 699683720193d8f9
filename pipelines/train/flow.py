"""Image set -> MLflow run with all settings, and metrics and a checkpoint per epoch -> the best epoch, registered."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from pyspark.sql import SparkSession

from cnnlib.config import TrainSettings, flatten
from cnnlib.config.settings import NOT_LOGGED
from cnnlib.feed.blocks import read_split
from cnnlib.image_set.contract import ImageSet, open_image_set
from cnnlib.image_set.splits import TRAIN, VAL
from cnnlib.keras_setup import check_keras
from cnnlib.predictions.drift import CONFIDENCE_BINS, confidence_counts, shares_of
from cnnlib.sealed.frozen.predict import Classifier, ModelCard
from cnnlib.training.advice import advice_on
from cnnlib.training.checkpoints import History, read_checkpoint, read_state
from cnnlib.training.learning_rate import global_batch_size, scaled_learning_rate
from cnnlib.training.preconditions import check_fit
from cnnlib.training.ranks import ALONE
from pipelines.spark.progress import Advance, Progress
from pipelines.tracking.aliases import move_alias
from pipelines.tracking.registry import TrainedOn, find_version, log_sealed_model
from pipelines.tracking.requirements import model_requirements
from pipelines.tracking.runs import tracked_run
from pipelines.tracking.starting_weights import with_pinned_weights
from pipelines.tracking.store import as_tracking_error, connect
from pipelines.tracking.tracker import Tracker
from pipelines.train.tracked_fit import fit_and_publish
from pipelines.train.workers.train_on_workers import check_workers, fit_on_workers

if TYPE_CHECKING:
    import keras

# Enough images for a distribution over ten bins. Predicting more would take time in the driver.
ENOUGH_FOR_CONFIDENCE = 10_000


@dataclass(frozen=True)
class TrainedModel:
    """The result of a training.

    - `version`: version of the registered model; None if nothing was registered.
    - `history`: metric name -> one value per epoch, for loss, accuracy, val_loss, val_accuracy, images_per_second and
      the other metrics of the run.
    - `best_epoch`: number of the epoch that was sealed, from 1.
    - `warnings`: advice after the last epoch, from the curves and the layers.
    - `ui_command`: the command that serves the MLflow UI; None if a server already does.
    - `run_url`: the page of this run in that UI.
    """

    run_id: str
    model_uri: str
    version: str | None
    history: History
    best_epoch: int
    warnings: tuple[str, ...]
    ui_command: str | None
    run_url: str


def train(spark: SparkSession, settings: TrainSettings, progress: Progress | None = None) -> TrainedModel:
    """Train on an image set in one MLflow run, and register the best epoch.

    With `train.resume`, go on with an interrupted run. For example::

        from cnnlib.config import TrainSettings
        from pipelines.spark import spark_session
        from pipelines.train import train

        settings = TrainSettings(
            data={"path": "digits-set"},
            model={"name": "lenet"},
            train={"epochs": 5, "worker_batch_size": 64},
            register={"name": "digits"},
        )
        model = train(spark_session(), settings)
        print(model.best_epoch, model.history["val_accuracy"], model.model_uri)

    Raises ImageSetError, ConfigError, HostError and TrackingError before training starts. Raises FeedError and
    TrainingError after that.
    """
    progress = progress or Progress()
    with training_run(spark, settings) as (image_set, settings, tracker):
        latest = tracker.latest_epoch()
        if latest:
            progress.say(f"going on with run {tracker.run_id} after epoch {latest}")
        fit_or_launch(spark, image_set, settings, tracker, progress)
        with as_tracking_error(tracker.uri, f"; all epochs are kept: go on with --train.resume {tracker.run_id}"):
            return _seal_best(image_set, settings, tracker)


@contextmanager
def training_run(
    spark: SparkSession, settings: TrainSettings, purpose: str = ""
) -> Iterator[tuple[ImageSet, TrainSettings, Tracker]]:
    """Check everything that can be checked, then start an MLflow run or go on with one.

    Yields the image set, the settings with their weights pinned, and the run. The run's name begins with `purpose`.
    """
    image_set = open_image_set(settings.data.path)
    check_fit(image_set, settings)
    model_requirements()
    uri = connect(settings.tracking)
    settings = with_pinned_weights(settings)
    if settings.train.workers:
        check_workers(spark, settings, uri)
    else:
        check_keras()
    described = described_settings(settings, uri)
    name = f"{purpose}{settings.model.name} on {image_set.name}"
    with tracked_run(uri, settings.tracking.experiment, name, settings.train.resume, described, image_set) as tracker:
        yield image_set, settings, tracker


def described_settings(settings: TrainSettings, tracking_uri: str) -> dict[str, object]:
    """Return the parameters that the run logs: all settings but those marked NOT_LOGGED, and what follows from them."""
    batch = global_batch_size(settings)
    return flatten(settings, without=NOT_LOGGED) | {
        "tracking.uri": tracking_uri,
        "global_batch_size": batch,
        "scaled_learning_rate": scaled_learning_rate(settings.optimizer, batch),
    }


def fit_or_launch(
    spark: SparkSession, image_set: ImageSet, settings: TrainSettings, tracker: Tracker, progress: Progress
) -> None:
    """Train, or sweep the learning rate, in this process or on workers. All results go to the run."""
    if settings.train.workers:
        fit_on_workers(spark, image_set, settings, tracker, progress)
        return
    with progress.step(f"train {settings.model.name} on {image_set.split(TRAIN).rows:,} images") as advance:
        reporter = _ConsoleReporter(advance, progress)
        fit_and_publish(image_set, settings, tracker, ranks=ALONE, make_reporter=lambda publisher: reporter)


@dataclass(frozen=True)
class _ConsoleReporter:
    """Shows the progress of a training in the driver."""

    step: Advance
    progress: Progress

    def say(self, line: str) -> None:
        self.progress.say(line)


def _seal_best(image_set: ImageSet, settings: TrainSettings, tracker: Tracker) -> TrainedModel:
    """Seal the best epoch, and register it if the settings name a model."""
    with TemporaryDirectory(prefix="sparkcnn-best-") as temporary:
        best = latest = tracker.fetch_checkpoint(tracker.latest_epoch(), Path(temporary))
        state = read_state(latest)
        tracker.log_best(state.best_epoch, settings.train.monitor, state.best_value)
        warnings = tuple(advice_on(state.history, settings, len(image_set.classes)).values())
        tracker.log_warnings(warnings)
        if state.best_epoch != state.epoch:
            best = tracker.fetch_checkpoint(state.best_epoch, Path(temporary))
        model, _ = read_checkpoint(best)
        uri, version = log_sealed_model(
            model,
            TrainedOn.of(image_set),
            _example(image_set, settings),
            register_as=settings.register.name,
            confidence_shares=_confidence_shares(model, image_set, settings),
        )
    if settings.register.name and settings.register.alias and version:
        registered = find_version(settings.register.name, version)
        move_alias(registered, settings.register.alias, tracker.run_id, "trained; register.alias asks for no gate")
    return TrainedModel(
        tracker.run_id,
        uri,
        version,
        state.history,
        state.best_epoch,
        warnings,
        tracker.ui_command,
        tracker.run_url,
    )


def _confidence_shares(model: "keras.Model", image_set: ImageSet, settings: TrainSettings) -> list[float]:
    """Return the distribution of the confidence on the first validation images, or [] without any; see `ModelCard`."""
    if not image_set.splits[VAL].rows:
        return []
    card = ModelCard(image_set.image, image_set.classes, image_set.fingerprint, model_sha256="", code_package="")
    classifier = Classifier(model, card)
    counts = np.zeros(CONFIDENCE_BINS, np.int64)
    with closing(read_split(image_set, VAL, timeout_s=settings.data.timeout_s)) as blocks:
        for images, _ in blocks:
            counts += confidence_counts(classifier.predict_pixels(images).max(axis=1))
            if counts.sum() >= ENOUGH_FOR_CONFIDENCE:
                break
    return shares_of(counts)


def _example(image_set: ImageSet, settings: TrainSettings) -> np.ndarray:
    """Return the first train image: (height, width, channels) uint8."""
    blocks = read_split(image_set, TRAIN, timeout_s=settings.data.timeout_s)
    images, _ = next(blocks)
    blocks.close()
    return images[0]
