"""The whole pipeline, one stage after the other, each timed."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from pyspark.sql import SparkSession

from cnnlib.config import DemoSettings
from cnnlib.errors import ConfigError, LimitError, ModelError
from cnnlib.image_set.contract import ImageSet
from cnnlib.image_set.splits import TRAIN
from cnnlib.predictions.contract import Predictions
from pipelines.evaluate.flow import accuracy
from pipelines.ingest.flow import ingest
from pipelines.score.flow import score
from pipelines.spark.progress import Progress
from pipelines.train.flow import TrainedModel, train

Result = TypeVar("Result")


@dataclass(frozen=True)
class Stage:
    """One stage's wall seconds, and the images that went through it (train: once an epoch)."""

    name: str
    seconds: float
    images: int


@dataclass
class DemoResult:
    """What each stage gave, and how long it took."""

    settings: DemoSettings
    image_set: ImageSet
    trained: TrainedModel
    predictions: Predictions
    test_accuracy: float
    stages: list[Stage] = field(default_factory=list)

    def check(self, min_test_accuracy: float) -> None:
        """Raise LimitError where the test accuracy is below the limit."""
        if self.test_accuracy < min_test_accuracy:
            raise LimitError(
                f"test accuracy {self.test_accuracy:.4f} is below min_test_accuracy={min_test_accuracy}; train longer "
                "(--train.train.epochs), or lower the limit"
            )


def demo(spark: SparkSession, settings: DemoSettings, progress: Progress | None = None) -> DemoResult:
    """Ingest, train, score, and compare the predictions with the labels.

    Raises ConfigError where the stages' settings do not follow on one another, and what each stage raises.
    """
    progress = progress or Progress()
    _check_chain(settings)
    image_set, ingest_seconds = _timed(lambda: ingest(spark, settings.ingest, progress))
    trained, train_seconds = _timed(lambda: train(spark, settings.train, progress))
    predictions, score_seconds = _timed(lambda: score(spark, settings.score, progress))
    if predictions.model.version != trained.version:
        raise ModelError(
            f"version {trained.version} was trained, but {predictions.model.version} was scored: another training "
            "has taken the alias meanwhile; run the demo again"
        )
    epochs = len(trained.history["loss"])
    return DemoResult(
        settings=settings,
        image_set=image_set,
        trained=trained,
        predictions=predictions,
        test_accuracy=accuracy(spark, predictions, image_set, settings.score.input.split),
        stages=[
            Stage("ingest", ingest_seconds, image_set.counts.found),
            Stage("train", train_seconds, image_set.split(TRAIN).rows * epochs),
            Stage("score", score_seconds, predictions.counts["rows"]),
        ],
    )


def _check_chain(settings: DemoSettings) -> None:
    paths = {settings.ingest.output.path, settings.train.data.path, settings.score.input.path}
    if len(paths) > 1:
        raise ConfigError(
            "ingest.output.path, train.data.path and score.input.path must be one image set, received "
            + ", ".join(str(path) for path in paths)
        )
    register, tracking = settings.train.register, settings.train.tracking
    if (
        settings.score.model != f"models:/{register.name}@{register.alias}"
        or settings.score.tracking.uri != tracking.uri
    ):
        raise ConfigError(
            f"score.model={settings.score.model} must be what train registers, "
            f"models:/{register.name}@{register.alias}, with the same tracking.uri"
        )
    if settings.score.input.split == "all":
        raise ConfigError("score.input.split=all would count train images too; take test")


def _timed(stage: Callable[[], Result]) -> tuple[Result, float]:
    start = time.monotonic()
    result = stage()
    return result, time.monotonic() - start
