"""The same training with several values of a setting, each with several seeds: means, deviations and tables."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

History = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Spread:
    """The mean of some numbers, and their sample standard deviation (divisor n - 1), NaN of a single one."""

    mean: float
    deviation: float

    def __str__(self) -> str:
        return f"{self.mean:.4f}" + ("" if math.isnan(self.deviation) else f" ± {self.deviation:.4f}")


def spread_of(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation.

    >>> str(spread_of([1.0, 3.0])), str(spread_of([0.5]))
    ('2.0000 ± 1.4142', '0.5000')
    """
    return Spread(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else math.nan)


@dataclass(frozen=True)
class Attempt:
    """One training of a value: its seed, the MLflow run, the seconds that it took and its metrics, one an epoch."""

    seed: int
    run_id: str
    seconds: float
    history: History


@dataclass(frozen=True)
class Contender:
    """A value, by its text, and its trainings."""

    value: str
    attempts: tuple[Attempt, ...]

    def best(self, metric: str, direction: str) -> Spread:
        """The best epoch of each training, by `direction` "max" or "min"; a value that is not a number is the worst."""
        pick, worst = (max, -math.inf) if direction == "max" else (min, math.inf)
        found = [
            pick(worst if math.isnan(value) else value for value in attempt.history[metric])
            for attempt in self.attempts
        ]
        return spread_of([math.nan if math.isinf(value) else value for value in found])

    def last(self, metric: str) -> Spread:
        """The last epoch of each training."""
        return spread_of([attempt.history[metric][-1] for attempt in self.attempts])

    @property
    def seconds(self) -> Spread:
        """How long a training took, its validation included."""
        return spread_of([attempt.seconds for attempt in self.attempts])

    def curve(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """(mean, sample standard deviation) of a metric over the seeds, (epochs,) float64 each.

        Of an epoch that early stopping let not all trainings reach, those count that did; one alone deviates by 0.
        """
        epochs = max(len(attempt.history[metric]) for attempt in self.attempts)
        reached = [
            [attempt.history[metric][epoch] for attempt in self.attempts if epoch < len(attempt.history[metric])]
            for epoch in range(epochs)
        ]
        spreads = [spread_of(values) for values in reached]
        means = np.array([spread.mean for spread in spreads])
        deviations = np.array(
            [spread.deviation if len(values) > 1 else 0.0 for spread, values in zip(spreads, reached, strict=True)]
        )
        return means, deviations


@dataclass(frozen=True)
class Comparison:
    """What was compared, by which metric and in which direction ("max" or "min")."""

    setting: str
    metric: str
    direction: str
    contenders: tuple[Contender, ...]

    @property
    def ranking(self) -> list[Contender]:
        """The contenders, the best first."""
        sign = -1 if self.direction == "max" else 1

        def badness(contender: Contender) -> float:
            mean = contender.best(self.metric, self.direction).mean
            return math.inf if math.isnan(mean) else sign * mean

        return sorted(self.contenders, key=badness)

    def rows(self) -> list[dict[str, Any]]:
        """A row a value, the best first: its seeds, and mean and deviation of its best and last metric and seconds."""
        rows = []
        for contender in self.ranking:
            spreads = {
                f"best_{self.metric}": contender.best(self.metric, self.direction),
                f"last_{self.metric}": contender.last(self.metric),
                "seconds": contender.seconds,
            }
            row: dict[str, Any] = {self.setting: contender.value, "seeds": len(contender.attempts)}
            for name, spread in spreads.items():
                row[f"{name}_mean"], row[f"{name}_deviation"] = spread.mean, spread.deviation
            rows.append(row)
        return rows


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same keys as CSV, with a heading; a number that is none is left empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {key: "" if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}
        )
    return text.getvalue()
