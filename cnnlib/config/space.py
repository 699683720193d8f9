"""What values a study tries of a setting, and how that is written: loguniform(1e-4,1e-1), choice(adam,sgd)."""

import math
import re
from dataclasses import dataclass
from typing import Any

from cnnlib.config.overrides import read_value, split_values
from cnnlib.errors import ConfigError

CHOICE = "choice"
_CONTINUOUS = ("uniform", "loguniform")
_WHOLE = ("int", "logint")
_FORMS = "uniform(LOW,HIGH), loguniform(LOW,HIGH), int(LOW,HIGH), logint(LOW,HIGH) or choice(A,B,…)"
_WRITTEN = re.compile(r"\s*(\w+)\s*\((.*)\)\s*", re.DOTALL)


@dataclass(frozen=True)
class Distribution:
    """What is drawn of a setting: `values` are the lowest and the highest, both included, or those to choose from."""

    kind: str
    values: tuple[Any, ...]

    @property
    def logarithmic(self) -> bool:
        """Whether the logarithm is drawn evenly."""
        return self.kind.startswith("log")

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are drawn."""
        return self.kind in _WHOLE

    @property
    def between(self) -> float | None:
        """A value that may be drawn and is no whole number; None where there is none."""
        if self.kind not in _CONTINUOUS:
            return None
        low, high = self.values
        return low + (high - low) / math.pi


def parse_distribution(name: str, text: Any) -> Distribution:
    """Read what a study shall try of a setting. Raises ConfigError.

    >>> parse_distribution("optimizer.learning_rate", "loguniform(1e-4, 1e-1)")
    Distribution(kind='loguniform', values=(0.0001, 0.1))
    >>> parse_distribution("optimizer.name", "choice(adam, sgd)").values
    ('adam', 'sgd')
    """
    given = f"tune.space.{name}={text}"
    written = _WRITTEN.fullmatch(text) if isinstance(text, str) else None
    if written is None or written[1] not in (*_CONTINUOUS, *_WHOLE, CHOICE):
        raise ConfigError(f"{given} is no distribution; write {_FORMS}")
    kind, parts = written[1], split_values(written[2])
    values = tuple(read_value(part) for part in parts)
    if kind == CHOICE:
        if not all(parts) or len(set(parts)) != len(parts) or any(isinstance(value, list | dict) for value in values):
            raise ConfigError(f"{given} needs different numbers, words, true, false or null; e.g. choice(adam,sgd)")
        return Distribution(kind, values)
    numbers = int if kind in _WHOLE else (int, float)
    if len(values) != 2 or not all(isinstance(value, numbers) and not isinstance(value, bool) for value in values):
        wanted = "two whole numbers" if kind in _WHOLE else "two numbers"
        raise ConfigError(f"{given} needs {wanted}, the lowest and the highest; e.g. {kind}(1,8)")
    low, high = values
    if not low < high or (kind.startswith("log") and low <= 0):
        above = " above 0" if kind.startswith("log") else ""
        raise ConfigError(f"{given} needs a lowest value{above} that is below the highest; e.g. {kind}(1,8)")
    return Distribution(kind, values)
