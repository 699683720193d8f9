"""The settings that a job has in common with train which trains many times, each time otherwise."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from cnnlib.config.overrides import override
from cnnlib.config.settings import Settings
from cnnlib.config.train import TrainingSections, TrainSettings


class VariedSettings(TrainingSections):
    """What all trainings have in common."""

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
        sections = self.sections() | {"train": self.train.model_copy(update=train)}
        return override(TrainSettings.model_validate(sections), values)


class ResultsSettings(Settings):
    """Where the job's files go, beside its MLflow run."""

    path: str = Field("results", description="folder on this machine; its files of the same names are replaced")
