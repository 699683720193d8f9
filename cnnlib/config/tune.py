"""The settings of tune."""

from typing import Any

from pydantic import Field, model_validator

from cnnlib.config.settings import MAY_DIFFER_ON_RESUME, NOT_LOGGED, Settings, flatten_values
from cnnlib.config.space import Distribution, parse_distribution
from cnnlib.config.varied import ResultsSettings, VariedSettings
from cnnlib.errors import ConfigError


class StudySettings(Settings):
    """The study: how many trials it has, and which values they try."""

    # MLflow's study storage reads at most 1000 runs.
    trials: int = Field(20, gt=0, le=1000, description="number of trials; a resumed study counts its earlier trials")
    parallel: int = Field(
        1,
        gt=0,
        json_schema_extra=MAY_DIFFER_ON_RESUME,
        description="trials that run at the same time, each in a Spark task with spark.task.cpus threads; with 1, the "
        "study tries the same values again if it is repeated",
    )
    space: dict[str, Any] = Field(
        {},
        description="settings of train with the values to try: uniform(a,b), loguniform(a,b), int(a,b), logint(a,b) or "
        "choice(a,b,c); e.g. --tune.space.optimizer.learning_rate 'loguniform(1e-4,1e-1)'",
    )
    startup_trials: int = Field(
        5, ge=1, description="number of first trials with random values; a trial is pruned only after these ended"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="random seed for the values to try; the trainings use train.seed")
    resume: str | None = Field(
        None,
        json_schema_extra=NOT_LOGGED,
        description="id of a study's run to resume, or auto: the newest unfinished study with the same settings",
    )


class TuneSettings(VariedSettings):
    """Search for the best settings of a training. Optuna runs trials as Spark tasks and says which settings matter."""

    tune: StudySettings
    output: ResultsSettings = ResultsSettings()

    @property
    def space(self) -> dict[str, Distribution]:
        """The values to try of each setting, by its dotted name. Raises ConfigError."""
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
                f"train.workers={self.train.workers} is not possible in a study, because a trial trains in one Spark "
                "task; leave it at 0 and set tune.parallel"
            )
        for name, distribution in self.space.items():
            if name in ("train.workers", "train.gpus_per_worker"):
                raise ConfigError(
                    f"tune.space.{name} is not possible, because a trial trains in one Spark task; set tune.parallel "
                    "instead"
                )
            for value in distribution.values:
                self.varied({name: value})
            if distribution.between is not None:
                try:
                    self.varied({name: distribution.between})
                except ConfigError as error:
                    raise ConfigError(
                        f"tune.space.{name} would also draw {distribution.between:g}: {error.message}; for whole "
                        "numbers take int(LOW,HIGH) or logint(LOW,HIGH)"
                    ) from error
        return self
