"""The settings of compare and tune, which repeat one training with other values."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from cnnlib.config.overrides import override
from cnnlib.config.settings import NOT_LOGGED, Settings
from cnnlib.config.train import TrainingSections, TrainSettings


class VariedSettings(TrainingSections):
    """The settings of the training that is repeated with other values."""

    @model_validator(mode="after")
    def _trains_from_the_start(self) -> "VariedSettings":
        if self.train.resume is not None:
            raise ValueError("train.resume is only for a single training; leave it out")
        if self.train.find_rate:
            raise ValueError("train.find_rate is only for a single training; leave it out")
        return self

    def varied(self, values: Mapping[str, Any], **train: Any) -> TrainSettings:
        """Return the settings of one training with these values. `train` overrides single fields of that section.

        Raises ConfigError, see `override`.
        """
        sections = self.sections() | {"train": self.train.model_copy(update=train)}
        return override(TrainSettings.model_validate(sections), values)


class ResultsSettings(Settings):
    """The folder of the result files. The MLflow run has them too."""

    path: str = Field(
        "results",
        json_schema_extra=NOT_LOGGED,
        description="folder on this machine; files of the same names are replaced",
    )
