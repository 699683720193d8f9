"""The settings of evaluate and promote."""

from typing import Literal, get_args

from pydantic import Field, field_validator, model_validator

from cnnlib.config.registered_names import ALIAS, MODEL_NAME, ModelUri, refuse_version_as_alias
from cnnlib.config.settings import Settings
from cnnlib.config.tracking import TrackingSettings

Corruption = Literal["gaussian_noise", "gaussian_blur", "brightness", "contrast", "jpeg_compression", "shift"]


class LabelledDataSettings(Settings):
    """The labelled images that the model is evaluated on."""

    path: str = Field(description="an image set that ingest wrote")
    split: Literal["train", "val", "test"] = Field("test", description="split of the image set")


class EvaluationExtrasSettings(Settings):
    """Results beyond the predictions themselves."""

    corruptions: list[Corruption] = Field(
        list(get_args(Corruption)),
        description="kinds of mild image damage; the accuracy is measured under each, and each takes as long as "
        "predicting the images themselves",
    )
    mistakes: int = Field(24, ge=0, le=500, description="number of the worst mistakes that the report shows")


class EvaluateSettings(Settings):
    """Measure a registered model on an image set: metrics, figures and a report in MLflow."""

    model: ModelUri
    data: LabelledDataSettings
    evaluate: EvaluationExtrasSettings = EvaluationExtrasSettings()
    tracking: TrackingSettings = TrackingSettings()


class PromotionDataSettings(Settings):
    """The images on which challenger and champion are compared."""

    path: str | None = Field(
        None, description="an image set that ingest wrote; null takes the one that the challenger was trained on"
    )
    split: Literal["val", "test"] = Field("test", description="split of the image set")


class GateSettings(Settings):
    """The limits that a challenger must keep. null leaves a gate out."""

    max_accuracy_loss: float | None = Field(
        0.0, ge=0, le=1, description="largest difference by which the accuracy may be below the champion's"
    )
    max_recall_loss: float | None = Field(
        0.05, ge=0, le=1, description="largest difference by which the recall of any class may be below the champion's"
    )
    better: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="significance level of McNemar's test, e.g. 0.05; the challenger must have more images right than "
        "chance alone explains",
    )
    parity: float | None = Field(
        1e-5,
        ge=0,
        le=1,
        description="largest difference between the probabilities of the registered model and those of the trained "
        "model, on the first images of the split",
    )
    min_speed: float | None = Field(
        0.8,
        ge=0,
        le=10,
        description="lowest images per second, as a fraction of the champion's; one task measures both in turns",
    )


class PromotionExtrasSettings(EvaluationExtrasSettings):
    """Results beyond the gates."""

    corruptions: list[Corruption] = Field(
        [],
        description="kinds of mild image damage; the accuracy under each is measured for the report, no gate uses it",
    )


class PromoteSettings(Settings):
    """Make a version of a registered model champion if it passes every gate, or roll back."""

    model: str = Field(pattern=MODEL_NAME, description="name of the registered model")
    challenger: str | None = Field(
        None, pattern=r"^(\d+|[A-Za-z][\w-]*)$", description="version to make champion, or an alias of that version"
    )
    rollback: bool = Field(
        False, description="give the alias back to the version that had it before; no gate is checked"
    )
    alias: str = Field("champion", pattern=ALIAS, description="alias that moves to the challenger")
    reason: str | None = Field(None, description="why, in your own words; it becomes a tag of the version")
    data: PromotionDataSettings = PromotionDataSettings()
    gates: GateSettings = GateSettings()
    evaluate: PromotionExtrasSettings = PromotionExtrasSettings()
    tracking: TrackingSettings = TrackingSettings()

    _is_no_version = field_validator("alias")(refuse_version_as_alias)

    @model_validator(mode="after")
    def _asks_for_one_thing(self) -> "PromoteSettings":
        if self.rollback == (self.challenger is not None):
            raise ValueError("challenger and rollback: give one of them, a version to promote or rollback true")
        return self
