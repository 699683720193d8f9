"""The settings of compare."""

from typing import Any

from pydantic import Field, field_validator, model_validator

from cnnlib.config.overrides import read_value, split_values
from cnnlib.config.settings import NOT_LOGGED, Settings
from cnnlib.config.train import TrainSettings
from cnnlib.config.varied import ResultsSettings, VariedSettings


class ComparedValuesSettings(Settings):
    """The values to compare."""

    over: str = Field(
        description="a setting of train and its values, e.g. optimizer.name=sgd,momentum,adam or "
        "model.options.activation=relu,tanh"
    )
    seeds: int | list[int] = Field(
        3, description="number of trainings per value, with the seeds train.seed, train.seed + 1, …; or a list of seeds"
    )
    resume: str | None = Field(
        None,
        json_schema_extra=NOT_LOGGED,
        description="id of a comparison's run to resume, or auto: the newest unfinished one with the same settings",
    )

    @field_validator("over")
    @classmethod
    def _names_values(cls, over: str) -> str:
        name, _, values = over.partition("=")
        if not name.strip() or not all(split_values(values)):
            raise ValueError("over must be SETTING=VALUE,VALUE,…")
        if len(set(split_values(values))) != len(split_values(values)):
            raise ValueError("over has a value twice; give each value once")
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
        """The dotted name of the setting that varies."""
        return self.over.partition("=")[0].strip()

    @property
    def values(self) -> dict[str, Any]:
        """The values to compare, each under its text."""
        return {text: read_value(text) for text in split_values(self.over.partition("=")[2])}


class CompareSettings(VariedSettings):
    """Train with several values of one setting and several seeds, and compare the results in a table and curves."""

    compare: ComparedValuesSettings
    output: ResultsSettings = ResultsSettings()

    @property
    def seeds(self) -> list[int]:
        """The seeds with which each value is trained."""
        given = self.compare.seeds
        return given if isinstance(given, list) else [self.train.seed + number for number in range(given)]

    def training(self, value: str, seed: int) -> TrainSettings:
        """Return the settings of the training with a value, given as its text, and a seed.

        Raises ConfigError, see `override`.
        """
        return self.varied({self.compare.setting: self.compare.values[value]}, seed=seed)

    @model_validator(mode="after")
    def _can_all_train(self) -> "CompareSettings":
        for value in self.compare.values:
            self.training(value, self.seeds[0])
        return self
