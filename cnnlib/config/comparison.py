"""The settings of compare."""

from typing import Any

from pydantic import Field, field_validator, model_validator

from cnnlib.config.model import ModelSettings
from cnnlib.config.optimizer import OptimizerSettings
from cnnlib.config.overrides import override, read_value, split_values
from cnnlib.config.settings import Settings
from cnnlib.config.tracking import TrackingSettings
from cnnlib.config.training import DataSettings, FitSettings, TrainSettings


class ComparedSettings(Settings):
    """What is compared."""

    over: str = Field(
        description="a setting of train and its values, e.g. optimizer.name=sgd,momentum,adam or "
        "model.options.activation=relu,tanh"
    )
    seeds: int | list[int] = Field(
        3, description="trainings of each value: how many, with the seeds from train.seed on, or a list of seeds"
    )
    resume: str | None = Field(
        None, description="id of a comparison's run to go on with, or auto: the newest unfinished of the same settings"
    )

    @field_validator("over")
    @classmethod
    def _names_values(cls, over: str) -> str:
        name, _, values = over.partition("=")
        if not name.strip() or not all(split_values(values)):
            raise ValueError("over must be SETTING=VALUE,VALUE,…")
        if len(set(split_values(values))) != len(split_values(values)):
            raise ValueError("over has a value twice")
        return over

    @field_validator("seeds")
    @classmethod
    def _are_seeds(cls, seeds: int | list[int]) -> int | list[int]:
        listed = seeds if isinstance(seeds, list) else range(seeds)
        if not listed or min(listed) < 0 or max(listed) >= 2**32 or len(set(listed)) != len(listed):
            raise ValueError("seeds must be 1 or more, or a list of different seeds from 0 to 4294967295")
        return seeds

    @property
    def setting(self) -> str:
        """The dotted name of what differs."""
        return self.over.partition("=")[0].strip()

    @property
    def values(self) -> dict[str, Any]:
        """Its values, each under its text."""
        return {text: read_value(text) for text in split_values(self.over.partition("=")[2])}


class ComparisonOutputSettings(Settings):
    """Where figure and tables go, beside the MLflow run."""

    path: str = Field("comparison", description="folder on this machine; its files of the same names are replaced")


class CompareSettings(Settings):
    """The same training with several values of one setting, each with several seeds: curves and a table."""

    data: DataSettings
    model: ModelSettings = ModelSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    train: FitSettings = FitSettings()
    tracking: TrackingSettings = TrackingSettings()
    compare: ComparedSettings
    output: ComparisonOutputSettings = ComparisonOutputSettings()

    @property
    def seeds(self) -> list[int]:
        """The seeds of each value's trainings."""
        given = self.compare.seeds
        return given if isinstance(given, list) else [self.train.seed + number for number in range(given)]

    def training(self, value: str, seed: int) -> TrainSettings:
        """The settings of one training: of a value, by its text, and a seed. Raises ConfigError, see `override`."""
        sections = {name: getattr(self, name) for name in ("data", "model", "optimizer", "tracking")}
        train = self.train.model_copy(update={"seed": seed, "resume": None})
        return override(TrainSettings(**sections, train=train), {self.compare.setting: self.compare.values[value]})

    @model_validator(mode="after")
    def _can_all_train(self) -> "CompareSettings":
        if self.train.resume is not None:
            raise ValueError("train.resume goes on with one training; give compare.resume")
        for value in self.compare.values:
            self.training(value, self.seeds[0])
        return self
