"""A trained and registered model that several test files use."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from cnnlib.config import (
    DataSettings,
    FitSettings,
    ImageSetOutputSettings,
    IngestSettings,
    RegisterSettings,
    SourceSettings,
    TrackingSettings,
    TrainSettings,
)
from cnnlib.image_set.contract import ImageSet
from cnnlib.quiet import import_tensorflow_quietly
from pipelines.ingest.flow import ingest

EPOCHS = 3


@dataclass(frozen=True)
class Trained:
    """A finished training: its image set, its settings and its result."""

    image_set: ImageSet
    settings: TrainSettings
    model: "TrainedModel"  # noqa: F821  (its import would load TensorFlow, which takes seconds)

    @property
    def tracking(self) -> TrackingSettings:
        return self.settings.tracking


@pytest.fixture(scope="session")
def trained(spark: SparkSession, digits_idx: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """LeNet, trained for three epochs on 600 digits, registered as version 1 of `digits` with the alias champion."""
    import_tensorflow_quietly()
    from pipelines.train.flow import train

    folder = tmp_path_factory.mktemp("trained")
    image_set = ingest(
        spark,
        IngestSettings(
            source=SourceSettings(format="idx", path=str(digits_idx)),
            output=ImageSetOutputSettings(path=str(folder / "digits")),
        ),
    )
    settings = TrainSettings(
        data=DataSettings(path=str(folder / "digits")),
        train=FitSettings(epochs=EPOCHS, worker_batch_size=32, seed=5),
        tracking=TrackingSettings(uri=f"sqlite:///{folder}/mlflow.db", experiment="digits"),
        register=RegisterSettings(name="digits"),
    )
    return Trained(image_set, settings, train(spark, settings))
