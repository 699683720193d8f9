"""The settings of compare."""

from typing import Any

from pydantic import Field, field_validator, model_validator

from cnnlib.config.overrides import read_value, split_values
from cnnlib.config.settings import Settings
from cnnlib.config.train import TrainSettings
from cnnlib.config.varied import ResultsSettings, VariedSettings


class ComparedValuesSettings(Settings):
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


class CompareSettings(VariedSettings):
    """The same training with several values of one setting, each with several seeds: curves and a table."""

    compare: ComparedValuesSettings
    output: ResultsSettings = ResultsSettings()

    @property
    def seeds(self) -> list[int]:
        """The seeds of each value's trainings."""
        given = self.compare.seeds
        return given if isinstance(given, list) else [self.train.seed + number for number in range(given)]

    def training(self, value: str, seed: int) -> TrainSettings:
        """The settings of one training: of a value, by its text, and a seed. Raises ConfigError, see `override`."""
        return self.varied({self.compare.setting: self.compare.values[value]}, seed=seed)

    @model_validator(mode="after")
    def _can_all_train(self) -> "CompareSettings":
        for value in self.compare.values:
            self.training(value, self.seeds[0])
        return self
