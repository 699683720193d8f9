"""The settings of evaluate and promote."""

from typing import Literal

from pydantic import Field, model_validator

from cnnlib.config.settings import Settings
from cnnlib.config.tracking import TrackingSettings

Corruption = Literal["gaussian_noise", "gaussian_blur", "brightness", "contrast", "jpeg_compression", "shift"]


class LabelledDataSettings(Settings):
    """What a model is evaluated on."""

    path: str = Field(description="an image set that ingest published")
    split: Literal["train", "val", "test"] = Field("test", description="split of the set")


class EvaluationExtrasSettings(Settings):
    """What is looked at beyond the predictions themselves."""

    corruptions: list[Corruption] = Field(
        ["gaussian_noise", "gaussian_blur", "brightness", "contrast", "jpeg_compression", "shift"],
        description="mild damage under which the accuracy is measured too; each takes as long as the images themselves",
    )
    mistakes: int = Field(24, ge=0, le=500, description="of the worst mistakes the report shows so many")


class EvaluateSettings(Settings):
    """A registered model and an image set -> how good it is, in MLflow and on one page."""

    model: str = Field(description="models:/NAME@ALIAS, models:/NAME/VERSION or runs:/RUN_ID/model")
    data: LabelledDataSettings
    evaluate: EvaluationExtrasSettings = EvaluationExtrasSettings()
    tracking: TrackingSettings = TrackingSettings()


class PromotionDataSettings(Settings):
    """What challenger and champion are compared on."""

    path: str | None = Field(
        None, description="an image set that ingest published; by default the one that the challenger was trained on"
    )
    split: Literal["val", "test"] = Field("test", description="split of the set")


class GateSettings(Settings):
    """What a challenger must show; null leaves a gate out."""

    max_accuracy_loss: float | None = Field(
        0.0, ge=0, le=1, description="the accuracy may be lower than the champion's by at most so much"
    )
    max_recall_loss: float | None = Field(
        0.05, ge=0, le=1, description="no class's recall may be lower than the champion's by more than so much"
    )
    better: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="have it shown to be better: more images right than by chance alone, at this level of McNemar's "
        "test, e.g. 0.05",
    )
    parity: float | None = Field(
        1e-5,
        ge=0,
        le=1,
        description="the registered model's probabilities may differ from those of the trained one by at most so much, "
        "on the first images of the split",
    )
    min_speed: float | None = Field(
        0.8, ge=0, le=10, description="least images/s, as a share of the champion's, measured in one task in turns"
    )


class PromotionExtrasSettings(EvaluationExtrasSettings):
    """What is looked at beyond the predictions themselves."""

    corruptions: list[Corruption] = Field(
        [], description="mild damage under which the accuracy is measured too, for the report; no gate asks for it"
    )


class PromoteSettings(Settings):
    """Challenger against champion on the same images: where it passes every gate, the alias moves to it."""

    model: str = Field(pattern=r"^[^/:]+$", description="name of the registered model")
    challenger: str | None = Field(
        None, pattern=r"^(\d+|[A-Za-z][\w-]*)$", description="version that is to become champion, or an alias of it"
    )
    rollback: bool = Field(
        False, description="bring back the version that had the alias before the present one, without any gate"
    )
    alias: str = Field("champion", pattern=r"^[A-Za-z][\w-]*$", description="alias that moves")
    reason: str | None = Field(None, description="why, in your words: a tag of the version")
    data: PromotionDataSettings = PromotionDataSettings()
    gates: GateSettings = GateSettings()
    evaluate: PromotionExtrasSettings = PromotionExtrasSettings()
    tracking: TrackingSettings = TrackingSettings()

    @model_validator(mode="after")
    def _asks_for_one_thing(self) -> "PromoteSettings":
        if self.rollback == (self.challenger is not None):
            raise ValueError("challenger and rollback: give one of them, a version to promote or rollback true")
        return self
