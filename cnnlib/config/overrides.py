"""Other values for single settings of a training, under their dotted names; and how such values are written."""

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from cnnlib.config.settings import Settings
from cnnlib.config.train import TrainSettings
from cnnlib.errors import ConfigError

# With other values of these, trainings could not be compared, would not be kept together or would reach into others.
_FIXED = (
    *("data.path", "train.seed", "train.monitor", "train.direction", "train.deterministic", "train.resume"),
    "train.find_rate",
    *("tracking.uri", "tracking.experiment", "register.name", "register.alias"),
)


def override(settings: TrainSettings, values: Mapping[str, Any]) -> TrainSettings:
    """Give settings that differ in these values.

    Raises ConfigError for a name that is no setting, or one that cannot vary, and for a value that it does not take.

    >>> override(TrainSettings(data={"path": "set"}), {"model.options.activation": "tanh"}).model.options
    {'activation': 'tanh'}
    """
    nested = settings.model_dump()
    for name, value in values.items():
        check_variable(name)
        *sections, last = name.split(".")
        section = nested
        for part in sections:
            section = section.setdefault(part, {})
        section[last] = value
    try:
        return TrainSettings(**nested)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        given = ", ".join(f"{name}={value}" for name, value in values.items())
        reason = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{given} does not fit: {place}: {reason}; take another value") from error


def check_variable(name: str) -> None:
    """Raise ConfigError for what is no setting of a training, or one that has to be the same in all."""
    known, open_ended = _names(TrainSettings)
    if name in _FIXED:
        raise ConfigError(f"{name} has to be the same in all trainings; set it by itself, and vary another setting")
    if name in known or any(name.startswith(f"{one}.") and name[len(one) + 1 :] for one in open_ended):
        return
    takeable = [one for one in known if one not in _FIXED]
    nearest = difflib.get_close_matches(name, takeable, n=1)
    hint = f"did you mean {nearest[0]}?" if nearest else "see sparkcnn train --help for those there are"
    raise ConfigError(f"{name} is no setting of a training; {hint}")


def _names(kind: type[Settings], prefix: str = "") -> tuple[list[str], list[str]]:
    """(settings of one value, settings that hold others under names of their own)."""
    known: list[str] = []
    open_ended: list[str] = []
    for name, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            for mine, theirs in zip((known, open_ended), _names(field.annotation, f"{prefix}{name}."), strict=True):
                mine += theirs
        else:
            (open_ended if isinstance(field.default, dict) else known).append(f"{prefix}{name}")
    return known, open_ended


def read_value(text: str) -> Any:
    """What a value means that stands in a text: a number, true, false, null, a list, a mapping, else the text.

    >>> [read_value(text) for text in ("1e-3", "8", "true", "relu", "[1, 2]")]
    [0.001, 8, True, 'relu', [1, 2]]
    """
    try:
        return json.loads(text)
    except ValueError:
        return text.strip()


def split_values(text: str) -> list[str]:
    """The parts of a text between its commas, but for those in brackets.

    >>> split_values("relu, [1,2],elu")
    ['relu', '[1,2]', 'elu']
    """
    return [part.strip() for part in _parts(text)]


def _parts(text: str) -> Iterable[str]:
    depth = start = 0
    for place, character in enumerate(text):
        depth += (character in "[{(") - (character in "]})")
        if character == "," and depth == 0:
            yield text[start:place]
            start = place + 1
    yield text[start:]
