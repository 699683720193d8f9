"""Read settings from the command line and from YAML files, and report a mistake as one line."""

import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any, NoReturn, TypeVar, get_origin

from jsonargparse import ArgumentParser
from pydantic import ValidationError

from cnnlib.config import Settings
from cnnlib.errors import ConfigError, did_you_mean

SettingsClass = TypeVar("SettingsClass", bound=Settings)

# Replaces the dots in a mapping's keys while jsonargparse reads them. With dots, jsonargparse would keep only the last
# of two options such as --model.options.a.b and --model.options.a.c.
KEY_DOT = "\N{ONE DOT LEADER}"

_UNKNOWN = re.compile(r"unrecognized arguments: (?:--)?(\S+)|(?:Key|option) ['\"](\S+)['\"]", re.IGNORECASE)


def parse_settings(
    job: str, kind: type[SettingsClass], arguments: Sequence[str], *, config_file: str | None = None
) -> SettingsClass:
    """Return the settings that a job's command line gives.

    Options override the file of an earlier `--config`. Without `--config`, `config_file` in conf/ is read. Raises
    ConfigError if a setting is unknown or missing, or has a wrong type or value. --help and --print_config end the
    process with status 0.

    >>> from cnnlib.config import ShowSettings
    >>> parse_settings("show", ShowSettings, ["--data.path", "sets/digits", "--data.images", "4"]).data.images
    4
    """
    parser = _Parser(prog=f"sparkcnn {job}", description=kind.__doc__, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file with settings; later options override it")
    parser.add_class_arguments(kind)
    parser.let_switches_stand_alone()
    if config_file is not None and not any(argument.startswith("--config") for argument in arguments):
        text = files("jobs.conf").joinpath(config_file).read_text()
        arguments = ["--config", text, *arguments]
    values = parser.parse_args([parser.with_whole_keys(argument) for argument in arguments]).as_dict()
    try:
        return kind(**{name: with_nested_keys(values[name]) for name in kind.model_fields})
    except ValidationError as error:
        # jsonargparse accepts some wrong values, such as a number out of range for a setting that may be null.
        first = error.errors()[0]
        parser.error(f"{'.'.join(map(str, first['loc']))}: {first['msg']}, received {first['input']}", error)


def with_nested_keys(values: Any) -> Any:
    """Turn each key that contains KEY_DOT into nested mappings.

    >>> with_nested_keys({"a": {"b": 1}, f"a{KEY_DOT}c": 2})
    {'a': {'b': 1, 'c': 2}}
    """
    if not isinstance(values, dict):
        return values
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *above, last = str(key).split(KEY_DOT)
        section = nested
        for name in above:
            # Copy, because the mapping may come from a file. A value that is not a mapping is replaced.
            section[name] = dict(section[name]) if isinstance(section.get(name), dict) else {}
            section = section[name]
        section[last] = with_nested_keys(value)
    return nested


class _Parser(ArgumentParser):
    def let_switches_stand_alone(self) -> None:
        """Read --rollback as --rollback true."""
        for action in self._actions:
            if getattr(action, "_typehint", None) is bool:
                action.nargs, action.const = "?", True

    def with_whole_keys(self, argument: str) -> str:
        """Join the keys in an option such as --model.options.head.units 8 with KEY_DOT."""
        option, equals, value = argument.partition("=")
        for action in self._actions:
            prefix = f"--{action.dest}."
            if get_origin(getattr(action, "_typehint", None)) is dict and option.startswith(prefix):
                return prefix + option.removeprefix(prefix).replace(".", KEY_DOT) + equals + value
        return argument

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        known = {action.dest for action in self._actions}
        raise ConfigError(one_line(message, known)) from ex


def one_line(message: str, known: Iterable[str]) -> str:
    """Shorten an error message of jsonargparse or pydantic to one line with what the user must know.

    `known` are the dotted names of all settings. An unknown name gets the nearest of them as a hint.

    >>> one_line("unrecognized arguments: --train.epoch 3", {"train.epochs", "train.seed"})
    'unrecognized arguments: --train.epoch 3; did you mean train.epochs?'
    """
    text = " ".join(message.split())
    text = re.sub(r"Parser key [\"']([\w.]+)[\"']: ", r"\1: ", text)
    text = re.sub(r"\d+ validation errors? for \S+ ", "", text)
    text = re.sub(r"\[type=[^\]]*\] For further information visit \S+\.? ", "", text)
    text = re.sub(
        r"Does not validate against any of the Union subtypes .*Given value: ", "does not fit, received ", text
    )
    # The parser of YAML does not know the name of the file.
    text = text.replace(' in "<unicode string>",', " at")
    text = text.replace("Got value:", "received").replace("typing.", "").replace("Value error, ", "")
    # If two settings contradict, the message quotes their whole section after it has named them.
    text = re.sub(r",? received \{.*\}$", "", text).removeprefix(": ")
    text = re.sub(r"<class '(\w+)'>", r"\1", text)
    unknown = _UNKNOWN.search(text)
    if unknown:
        name = next(group for group in unknown.groups() if group).split("=")[0]
        names = [*known, *(key.rsplit(".", 1)[-1] for key in known)]
        text += f"; {did_you_mean(name, names, 'see --help for all settings')}"
    return text
