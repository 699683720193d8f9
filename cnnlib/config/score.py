"""The settings of score."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from cnnlib.config.registered_names import ModelUri
from cnnlib.config.settings import Settings
from cnnlib.config.sources import SourceFormat, SourceSettings
from cnnlib.config.tracking import TrackingSettings

if TYPE_CHECKING:  # see `SourceFormat`
    InputFormat = str
else:
    InputFormat = Literal["image_set", SourceFormat]

# Settings of the input that only a source has, never an image set.
_SOURCE_SETTINGS = ("path_column", "content_column", "encoding")


class ScoreInputSettings(Settings):
    """The images to score."""

    path: str | None = Field(None, description="image set, or a source that ingest reads; not used for mnist")
    format: InputFormat = Field("image_set", description="image_set, or any format that ingest reads")
    split: Literal["train", "val", "test", "all"] = Field(
        "test", description="split of an image set to score; of other formats all images are scored"
    )
    path_column: str = Field("path", description="manifest, table: column of the path")
    content_column: str = Field("content", description="table: column of the bytes of the image file")
    encoding: str | None = Field(None, description="manifest: encoding of a CSV or JSON file; null is UTF-8")

    def as_source(self) -> SourceSettings:
        """Return the settings of the source to score, if `format` is one that ingest reads; labels are not needed."""
        path = None if self.format == "mnist" else self.path
        columns = {name: getattr(self, name) for name in _SOURCE_SETTINGS}
        return SourceSettings(format=self.format, path=path, labels="none", **columns)

    @model_validator(mode="after")
    def _is_a_whole_source(self) -> "ScoreInputSettings":
        if self.format != "image_set":
            self.as_source()
            return self
        for name in _SOURCE_SETTINGS:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is not a setting of format image_set; leave it out")
        return self


class PredictionsOutputSettings(Settings):
    """Where the predictions go."""

    path: str = Field(description="folder of the predictions, as a path or URI")
    overwrite: bool = Field(
        False, description="replace existing predictions; readers see the old ones until the new ones are complete"
    )


class PredictionSettings(Settings):
    """Which images to score, and what to keep about each."""

    max_failed_fraction: float = Field(
        0.05,
        ge=0,
        le=1,
        description="largest fraction of rows without a prediction; above it the job ends with exit status 3",
    )
    mode: Literal["all", "incremental", "stream"] = Field(
        "all",
        description="incremental scores only images whose content has no prediction yet, and adds these to the "
        "predictions at output.path; stream does so for files that were added to a folder since the run before",
    )
    rescore: bool = Field(
        False, description="incremental, stream: also score images that only other versions of the model have scored"
    )
    checkpoint: str | None = Field(
        None, description="stream: folder of Spark's checkpoint; null takes output.path with -checkpoint at its end"
    )
    top_k: int = Field(
        0, ge=0, description="also give the most probable classes of each row, as many as this; 0 for none"
    )
    probabilities: bool = Field(False, description="also give the probability of every class")
    embedding: bool = Field(False, description="also give the input of the model's last layer with weights")


class ScoreSettings(Settings):
    """Score images with a registered model: one prediction per image."""

    model: ModelUri
    input: ScoreInputSettings = ScoreInputSettings()
    output: PredictionsOutputSettings
    score: PredictionSettings = PredictionSettings()
    tracking: TrackingSettings = TrackingSettings()
