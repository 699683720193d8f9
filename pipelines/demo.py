"""Run the whole pipeline, stage by stage, and time each stage."""

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
    """The wall-clock seconds of a stage, and the images that it processed; train counts them once per epoch."""

    name: str
    seconds: float
    images: int


@dataclass
class DemoResult:
    """The result of each stage, and the time that it took."""

    settings: DemoSettings
    image_set: ImageSet
    trained: TrainedModel
    predictions: Predictions
    test_accuracy: float
    stages: list[Stage] = field(default_factory=list)

    def check(self, min_test_accuracy: float) -> None:
        """Raise LimitError if the test accuracy is below the limit."""
        if self.test_accuracy < min_test_accuracy:
            raise LimitError(
                f"test accuracy {self.test_accuracy:.4f} is below min_test_accuracy={min_test_accuracy}; train longer "
                "(--train.train.epochs), or lower the limit"
            )


def demo(spark: SparkSession, settings: DemoSettings, progress: Progress | None = None) -> DemoResult:
    """Ingest, train and score, and compare the predictions with the labels.

    Raises ConfigError if one stage does not use the result of the stage before, and everything that a stage raises.
    """
    progress = progress or Progress()
    _check_chain(settings)
    image_set, ingest_seconds = _timed(lambda: ingest(spark, settings.ingest, progress))
    trained, train_seconds = _timed(lambda: train(spark, settings.train, progress))
    predictions, score_seconds = _timed(lambda: score(spark, settings.score, progress))
    if predictions.model.version != trained.version:
        raise ModelError(
            f"version {trained.version} was trained, but version {predictions.model.version} scored, because another "
            "training took the alias; run the demo again"
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
    """Raise ConfigError unless each stage uses the result of the stage before."""
    paths = {settings.ingest.output.path, settings.train.data.path, settings.score.input.path}
    if len(paths) > 1:
        raise ConfigError(
            "ingest.output.path, train.data.path and score.input.path must name the same image set, received "
            + ", ".join(str(path) for path in paths)
        )
    register, tracking = settings.train.register, settings.train.tracking
    if (
        settings.score.model != f"models:/{register.name}@{register.alias}"
        or settings.score.tracking.uri != tracking.uri
    ):
        raise ConfigError(
            f"score.model={settings.score.model} must be the model that train registers, "
            f"models:/{register.name}@{register.alias}, with the same tracking.uri"
        )
    if settings.score.input.split == "all":
        raise ConfigError("score.input.split=all would also count the train images; use test")


def _timed(stage: Callable[[], Result]) -> tuple[Result, float]:
    start = time.monotonic()
    result = stage()
    return result, time.monotonic() - start
