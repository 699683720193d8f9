"""The values that a study tries for a setting, written as loguniform(1e-4,1e-1) or choice(adam,sgd)."""

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
_DISTRIBUTION = re.compile(r"\s*(\w+)\s*\((.*)\)\s*", re.DOTALL)


@dataclass(frozen=True)
class Distribution:
    """The distribution from which a setting's values are drawn.

    `values` are the choices, or the lowest and the highest value, both included.
    """

    kind: str
    values: tuple[Any, ...]

    @property
    def logarithmic(self) -> bool:
        """Whether the logarithm of the value is uniformly distributed."""
        return self.kind.startswith("log")

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are drawn."""
        return self.kind in _WHOLE

    @property
    def between(self) -> float | None:
        """A value that may be drawn and is not a whole number, or None."""
        if self.kind not in _CONTINUOUS:
            return None
        low, high = self.values
        return low + (high - low) / math.pi


def parse_distribution(name: str, text: Any) -> Distribution:
    """Read the distribution that the text describes for the setting `name`. Raises ConfigError.

    >>> parse_distribution("optimizer.learning_rate", "loguniform(1e-4, 1e-1)")
    Distribution(kind='loguniform', values=(0.0001, 0.1))
    >>> parse_distribution("optimizer.name", "choice(adam, sgd)").values
    ('adam', 'sgd')
    """
    given = f"tune.space.{name}={text}"
    match = _DISTRIBUTION.fullmatch(text) if isinstance(text, str) else None
    if match is None or match[1] not in (*_CONTINUOUS, *_WHOLE, CHOICE):
        raise ConfigError(f"{given} is not a distribution; write {_FORMS}")
    kind, parts = match[1], split_values(match[2])
    values = tuple(read_value(part) for part in parts)
    if kind == CHOICE:
        if not all(parts) or len(set(parts)) != len(parts) or any(isinstance(value, list | dict) for value in values):
            raise ConfigError(f"{given} needs different numbers, words, true, false or null, e.g. choice(adam,sgd)")
        return Distribution(kind, values)
    numbers = int if kind in _WHOLE else (int, float)
    if len(values) != 2 or not all(isinstance(value, numbers) and not isinstance(value, bool) for value in values):
        wanted = "two whole numbers" if kind in _WHOLE else "two numbers"
        raise ConfigError(f"{given} needs {wanted}: the lowest and the highest, e.g. {kind}(1,8)")
    low, high = values
    if not low < high or (kind.startswith("log") and low <= 0):
        above = " above 0" if kind.startswith("log") else ""
        raise ConfigError(f"{given} needs a lowest value{above} that is below the highest, e.g. {kind}(1,8)")
    return Distribution(kind, values)
