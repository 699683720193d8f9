"""Other values for single settings of a training, under their dotted names; and how such values are written."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from cnnlib.config.settings import SAME_IN_ALL_TRAININGS, fields_of, names_marked
from cnnlib.config.train import TrainSettings
from cnnlib.errors import ConfigError, did_you_mean


def override(settings: TrainSettings, values: Mapping[str, Any]) -> TrainSettings:
    """Return a copy of the settings with these values, which are given under dotted names.

    Raises ConfigError if a name is not a setting, if the setting must not vary, or if it does not take the value.

    >>> override(TrainSettings(data={"path": "set"}), {"model.options.activation": "tanh"}).model.options
    {'activation': 'tanh'}
    """
    nested = settings.model_dump()
    for name, value in values.items():
        check_may_vary(name)
        *sections, last = name.split(".")
        section = nested
        for part in sections:
            section = section.setdefault(part, {})
        section[last] = value
    try:
        return TrainSettings(**nested)
    except ValidationError as error:
        first = error.errors()[0]
        setting = ".".join(map(str, first["loc"]))
        given = ", ".join(f"{name}={value}" for name, value in values.items())
        reason = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{given} is not valid: {setting}: {reason}; take another value") from error


def check_may_vary(name: str) -> None:
    """Raise ConfigError if the name is not a setting of train, or if the setting must be the same in all trainings."""
    fields = fields_of(TrainSettings)
    fixed = names_marked(TrainSettings, SAME_IN_ALL_TRAININGS)
    if name in fixed:
        raise ConfigError(f"{name} must be the same in all trainings; give it one value, and vary another setting")
    # A dictionary, such as model.options, takes any name below its own.
    dictionaries = [known for known, field in fields.items() if isinstance(field.default, dict)]
    if any(name.startswith(f"{known}.") and name != f"{known}." for known in dictionaries):
        return
    variable = fields.keys() - fixed - set(dictionaries)
    if name in variable:
        return
    hint = did_you_mean(name, sorted(variable), "see sparkcnn train --help for all settings")
    raise ConfigError(f"{name} is not a setting of train; {hint}")


def read_value(text: str) -> Any:
    """Return the value that a text stands for: a number, true, false, null, a list, a mapping, or else the text.

    >>> [read_value(text) for text in ("1e-3", "8", "true", "relu", "[1, 2]")]
    [0.001, 8, True, 'relu', [1, 2]]
    """
    try:
        return json.loads(text)
    except ValueError:
        return text.strip()


def split_values(text: str) -> list[str]:
    """Split a text at its commas, except commas inside brackets.

    >>> split_values("relu, [1,2],elu")
    ['relu', '[1,2]', 'elu']
    """
    return [part.strip() for part in _parts(text)]


def _parts(text: str) -> Iterator[str]:
    depth = start = 0
    for position, character in enumerate(text):
        depth += (character in "[{(") - (character in "]})")
        if character == "," and depth == 0:
            yield text[start:position]
            start = position + 1
    yield text[start:]
