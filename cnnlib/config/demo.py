"""The settings of demo."""

from pydantic import Field

from cnnlib.config.ingest import IngestSettings
from cnnlib.config.score import ScoreSettings
from cnnlib.config.settings import Settings
from cnnlib.config.train import TrainSettings


class DemoSettings(Settings):
    """Run the whole pipeline, by default on MNIST: ingest, train, score."""

    ingest: IngestSettings
    train: TrainSettings
    score: ScoreSettings
    min_test_accuracy: float = Field(
        0.985, ge=0, le=1, description="lowest test accuracy; below it the demo ends with exit status 3"
    )
