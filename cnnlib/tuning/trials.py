"""The trials of a study: how each one ended, and which is the best."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from cnnlib.config import TrainSettings

# The file with the settings of the best trial.
BEST = "best.yaml"
COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"


@dataclass(frozen=True)
class TrialOutcome:
    """How a trial ended.

    `value` is its metric, None if the trial failed. `epochs` is the number of epochs that it trained. `settings` are
    the values that were drawn for it. `error` says why it failed.
    """

    number: int
    run_id: str
    state: str
    value: float | None
    epochs: int
    seconds: float
    settings: Mapping[str, Any]
    error: str = ""


def ranked(trials: Sequence[TrialOutcome], direction: str) -> list[TrialOutcome]:
    """Sort trials: complete ones first, then pruned ones, then failed ones; among each, best first.

    `direction` is "max" or "min".
    """
    order = (COMPLETE, PRUNED, FAILED)
    sign = -1 if direction == "max" else 1

    def rank(trial: TrialOutcome) -> tuple[int, float, int]:
        value = math.nan if trial.value is None else trial.value
        return order.index(trial.state), math.inf if math.isnan(value) else sign * value, trial.number

    return sorted(trials, key=rank)


def trial_rows(trials: Sequence[TrialOutcome], metric: str) -> list[dict[str, Any]]:
    """Return one row per trial, in the given order, with a key for every setting that any of them drew."""
    names = list(dict.fromkeys(name for trial in trials for name in trial.settings))
    return [
        {
            "trial": trial.number,
            "state": trial.state,
            metric: "" if trial.value is None else trial.value,
            "epochs": trial.epochs,
            "seconds": round(trial.seconds, 1),
            **{name: trial.settings.get(name, "") for name in names},
            "run_id": trial.run_id,
            "error": trial.error,
        }
        for trial in trials
    ]


def best_yaml(best: TrainSettings, trial: TrialOutcome, metric: str) -> str:
    """Return the settings of the best trial as YAML, for `sparkcnn train --config`."""
    values = best.model_dump(mode="json", exclude={"register": True, "train": {"resume"}})
    heading = f"# sparkcnn train --config {BEST}\n# Trial {trial.number}: {metric} {trial.value:.4f}\n"
    return heading + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
