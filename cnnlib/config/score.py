"""The settings of score."""

from typing import Literal

from pydantic import Field

from cnnlib.config.ingest import SourceFormat
from cnnlib.config.settings import Settings
from cnnlib.config.tracking import TrackingSettings


class ScoreInputSettings(Settings):
    """What is scored."""

    path: str | None = Field(None, description="image set, or what ingest reads; unused for mnist")
    format: Literal["image_set", SourceFormat] = Field(
        "image_set", description="image_set, or any format that ingest reads"
    )
    split: Literal["train", "val", "test", "all"] = Field(
        "test", description="split of an image set to score; other formats are scored whole"
    )


class PredictionsOutputSettings(Settings):
    """Where the predictions go."""

    path: str = Field(description="folder of the predictions, as a path or URI")
    overwrite: bool = Field(False, description="replace what is there; readers see the old until the new is whole")


class PredictionSettings(Settings):
    """How scoring runs."""

    max_failed_fraction: float = Field(
        0.05, ge=0, le=1, description="more rows without a prediction than this share end with exit status 3"
    )
    mode: Literal["all", "incremental", "stream"] = Field(
        "all",
        description="incremental adds the predictions of images that have none yet, by content, to those at "
        "output.path; stream those of files that have come into a folder since the run before",
    )
    rescore: bool = Field(
        False, description="incremental, stream: also score images that only other versions of the model have scored"
    )
    checkpoint: str | None = Field(
        None, description="stream: folder of Spark's checkpoint; by default output.path with -checkpoint behind it"
    )
    top_k: int = Field(0, ge=0, description="also give so many of the most probable classes a row; 0 is none")
    probabilities: bool = Field(False, description="also give the probability of every class")
    embedding: bool = Field(False, description="also give what the model's last layer with weights is given")


class ScoreSettings(Settings):
    """Images and a registered model -> predictions."""

    model: str = Field(description="models:/NAME@ALIAS, models:/NAME/VERSION or runs:/RUN_ID/model")
    input: ScoreInputSettings = ScoreInputSettings()
    output: PredictionsOutputSettings
    score: PredictionSettings = PredictionSettings()
    tracking: TrackingSettings = TrackingSettings()
