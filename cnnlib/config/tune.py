"""The settings of tune."""

from typing import Any

from pydantic import Field, model_validator

from cnnlib.config.settings import Settings, flatten_values
from cnnlib.config.space import Distribution, parse_distribution
from cnnlib.config.varied import ResultsSettings, VariedSettings
from cnnlib.errors import ConfigError


class StudySettings(Settings):
    """How many trials, and what they try."""

    # MLflow's storage of studies reads no more runs than these.
    trials: int = Field(
        20, gt=0, le=1000, description="trainings in all, those of a study that is gone on with included"
    )
    parallel: int = Field(
        1, gt=0, description="Spark tasks that train at once, each with spark.task.cpus threads; 1 draws the same again"
    )
    space: dict[str, Any] = Field(
        {},
        description="settings of train, and what is tried of each: uniform(a,b), loguniform(a,b), int(a,b), "
        "logint(a,b) or choice(a,b,c); e.g. --tune.space.optimizer.learning_rate 'loguniform(1e-4,1e-1)'",
    )
    startup_trials: int = Field(
        5, ge=1, description="trials that are drawn at random, and ended before one may be pruned"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="of what is drawn; the trainings have train.seed")
    resume: str | None = Field(
        None, description="id of a study's run to go on with, or auto: the newest unfinished one of the same settings"
    )


class TuneSettings(VariedSettings):
    """Trials of settings on Spark, guided by Optuna: the best of them, and which settings matter."""

    tune: StudySettings
    output: ResultsSettings = ResultsSettings()

    @property
    def space(self) -> dict[str, Distribution]:
        """What is tried of each setting, by its dotted name. Raises ConfigError."""
        texts = flatten_values(self.tune.space)
        return {name: parse_distribution(name, text) for name, text in texts.items()}

    @model_validator(mode="after")
    def _can_be_searched(self) -> "TuneSettings":
        if not self.tune.space:
            raise ConfigError(
                "tune.space names no setting; give one, e.g. --tune.space.optimizer.name choice(adam,sgd)"
            )
        if self.train.workers:
            raise ConfigError(
                f"train.workers={self.train.workers} in a study: a trial trains in one Spark task; leave it 0 and set "
                "tune.parallel"
            )
        for name, distribution in self.space.items():
            if name in ("train.workers", "train.gpus_per_worker"):
                raise ConfigError(f"tune.space.{name}: a trial trains in one Spark task; set tune.parallel instead")
            for value in distribution.values:
                self.varied({name: value})
            if distribution.between is not None:
                try:
                    self.varied({name: distribution.between})
                except ConfigError as error:
                    raise ConfigError(
                        f"tune.space.{name} would draw {distribution.between:g} too: {error.message}; whole numbers "
                        "are drawn by int(LOW,HIGH) and logint(LOW,HIGH)"
                    ) from error
        return self
