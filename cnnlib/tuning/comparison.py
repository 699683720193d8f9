"""Compare trainings that differ in one setting, each with several seeds: means, deviations and tables."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

History = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (divisor n - 1) of some numbers. The deviation of a single one is NaN."""

    mean: float
    deviation: float

    def __str__(self) -> str:
        return f"{self.mean:.4f}" + ("" if math.isnan(self.deviation) else f" ± {self.deviation:.4f}")


def spread_of(values: Sequence[float]) -> Spread:
    """Compute mean and sample standard deviation. If a value is NaN, both are.

    >>> str(spread_of([1.0, 3.0])), str(spread_of([0.5]))
    ('2.0000 ± 1.4142', '0.5000')
    """
    series = pd.Series(values, dtype=float)
    return Spread(series.mean(skipna=False), series.std(skipna=False))


@dataclass(frozen=True)
class Attempt:
    """One training with a value: its seed, its MLflow run, its seconds, and its metrics, one number per epoch."""

    seed: int
    run_id: str
    seconds: float
    history: History


@dataclass(frozen=True)
class Contender:
    """A value of the setting, as text, and its trainings."""

    value: str
    attempts: tuple[Attempt, ...]

    def best(self, metric: str, direction: str) -> Spread:
        """Compute the spread of each training's best epoch. `direction` is "max" or "min"; NaN counts as the worst."""
        pick, worst = (max, -math.inf) if direction == "max" else (min, math.inf)
        best = [
            pick(worst if math.isnan(value) else value for value in attempt.history[metric])
            for attempt in self.attempts
        ]
        return spread_of([math.nan if math.isinf(value) else value for value in best])

    def last(self, metric: str) -> Spread:
        """Compute the spread of each training's last epoch."""
        return spread_of([attempt.history[metric][-1] for attempt in self.attempts])

    @property
    def seconds(self) -> Spread:
        """Seconds that a training took, with its validation."""
        return spread_of([attempt.seconds for attempt in self.attempts])

    def curve(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Compute (mean, sample standard deviation) of a metric over the seeds, (epochs,) float64 each.

        An epoch counts only the trainings that reached it. If only one did, the deviation is 0.
        """
        histories = [attempt.history[metric] for attempt in self.attempts]
        reached = [
            [history[epoch] for history in histories if epoch < len(history)]
            for epoch in range(max(map(len, histories)))
        ]
        spreads = [spread_of(values) for values in reached]
        means = np.array([spread.mean for spread in spreads])
        deviations = np.array(
            [spread.deviation if len(values) > 1 else 0.0 for spread, values in zip(spreads, reached, strict=True)]
        )
        return means, deviations


@dataclass(frozen=True)
class Comparison:
    """A compared setting, the metric that ranks its values, and the metric's direction ("max" or "min")."""

    setting: str
    metric: str
    direction: str
    contenders: tuple[Contender, ...]

    @property
    def ranking(self) -> list[Contender]:
        """The contenders, best first. Those without a number come last."""
        sign = -1 if self.direction == "max" else 1

        def badness(contender: Contender) -> float:
            mean = contender.best(self.metric, self.direction).mean
            return math.inf if math.isnan(mean) else sign * mean

        return sorted(self.contenders, key=badness)

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per value, best first.

        A row has the number of seeds, and mean and deviation of the best metric, the last metric and the seconds.
        """
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
    """Write rows with the same keys as CSV, with a header line. NaN and None are empty.

    >>> as_csv([{"x": 1, "y": float("nan")}, {"x": 2.5, "y": "a, b"}])
    'x,y\\n1,\\n2.5,"a, b"\\n'
    """
    # Columns of objects: otherwise pandas writes 1 as 1.0, because the column has 2.5 too.
    return pd.DataFrame(rows, dtype=object).to_csv(index=False, lineterminator="\n")
