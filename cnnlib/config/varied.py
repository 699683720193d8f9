"""The settings that a job has in common with train which trains many times, each time otherwise."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from cnnlib.config.augmentation import AugmentSettings
from cnnlib.config.model import ModelSettings
from cnnlib.config.optimizer import OptimizerSettings
from cnnlib.config.overrides import override
from cnnlib.config.settings import Settings
from cnnlib.config.tracking import TrackingSettings
from cnnlib.config.training import DataSettings, FitSettings, TrainSettings, TransferSettings

SECTIONS = ("data", "model", "augment", "transfer", "optimizer", "tracking")


class VariedSettings(Settings):
    """What all trainings have in common."""

    data: DataSettings
    model: ModelSettings = ModelSettings()
    augment: AugmentSettings = AugmentSettings()
    transfer: TransferSettings = TransferSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    train: FitSettings = FitSettings()
    tracking: TrackingSettings = TrackingSettings()

    @model_validator(mode="after")
    def _goes_on_by_its_own_setting(self) -> "VariedSettings":
        if self.train.resume is not None:
            raise ValueError("train.resume goes on with a single training; leave it out")
        if self.train.find_rate:
            raise ValueError("train.find_rate is for a single training; leave it out")
        return self

    def varied(self, values: Mapping[str, Any], **train: Any) -> TrainSettings:
        """The settings of one training, which differ in these values, and in those of the section train.

        Raises ConfigError, see `override`.
        """
        sections = {name: getattr(self, name) for name in SECTIONS}
        return override(TrainSettings(**sections, train=self.train.model_copy(update=train)), values)


class ResultsSettings(Settings):
    """Where the job's files go, beside its MLflow run."""

    path: str = Field("results", description="folder on this machine; its files of the same names are replaced")
