"""The trials of a study: how each of them ended, and which is the best."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"


@dataclass(frozen=True)
class TrialOutcome:
    """How a trial ended: `value` is its metric, None where it failed; `settings` what was drawn; `error` why it failed.

    `epochs` are those that it trained.
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
    """Those that ran to their end first, then the pruned ones, then the failed; the best first, by "max" or "min"."""
    order = (COMPLETE, PRUNED, FAILED)
    sign = -1 if direction == "max" else 1

    def rank(trial: TrialOutcome) -> tuple[int, float, int]:
        value = math.nan if trial.value is None else trial.value
        return order.index(trial.state), math.inf if math.isnan(value) else sign * value, trial.number

    return sorted(trials, key=rank)


def trial_rows(trials: Sequence[TrialOutcome], metric: str) -> list[dict[str, Any]]:
    """A row a trial, in the order given, with every setting that any of them has drawn."""
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
