"""Command line and YAML -> settings: `--config FILE`, dotted overrides, and one line for every mistake."""

import difflib
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any, NoReturn, TypeVar, get_origin

from jsonargparse import ArgumentParser
from pydantic import ValidationError

from cnnlib.config import Settings
from cnnlib.errors import ConfigError

SettingsClass = TypeVar("SettingsClass", bound=Settings)

# Stands for a dot in the key of a mapping while jsonargparse reads it: of two options with the keys a.b and a.c it
# would keep the second alone.
KEY_DOT = "\N{ONE DOT LEADER}"

_UNKNOWN = re.compile(r"unrecognized arguments: (?:--)?(\S+)|(?:Key|option) ['\"](\S+)['\"]", re.IGNORECASE)


def parse_settings(
    job: str, kind: type[SettingsClass], arguments: Sequence[str], *, config_file: str | None = None
) -> SettingsClass:
    """Parse a job's command line into its settings.

    `config_file` names a file in conf/ that stands in for `--config` where none is given. Raises ConfigError for an
    unknown, missing or ill-typed setting; --help and --print_config end the process with status 0.
    """
    parser = _Parser(prog=f"sparkcnn {job}", description=kind.__doc__, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file with settings; options behind it override it")
    parser.add_class_arguments(kind)
    parser.let_switches_stand_alone()
    if config_file is not None and not any(argument.startswith("--config") for argument in arguments):
        text = files("jobs.conf").joinpath(config_file).read_text()
        arguments = ["--config", text, *arguments]
    values = parser.parse_args([parser.with_whole_keys(argument) for argument in arguments]).as_dict()
    try:
        return kind(**{name: with_nested_keys(values[name]) for name in kind.model_fields})
    except ValidationError as error:
        # jsonargparse lets a few things pass, such as a number out of the range of an optional setting.
        first = error.errors()[0]
        parser.error(f"{'.'.join(map(str, first['loc']))}: {first['msg']}, received {first['input']}", error)


def with_nested_keys(values: Any) -> Any:
    """Make KEY_DOT in the keys of mappings what a dot means to people.

    >>> with_nested_keys({"a": {"b": 1}, f"a{KEY_DOT}c": 2})
    {'a': {'b': 1, 'c': 2}}
    """
    if not isinstance(values, dict):
        return values
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *above, last = str(key).split(KEY_DOT)
        place = nested
        for name in above:
            # What was given before may be a file's, or no mapping: the later one stands.
            place[name] = dict(place[name]) if isinstance(place.get(name), dict) else {}
            place = place[name]
        place[last] = with_nested_keys(value)
    return nested


class _Parser(ArgumentParser):
    def let_switches_stand_alone(self) -> None:
        """Take --rollback for --rollback true."""
        for action in self._actions:
            if getattr(action, "_typehint", None) is bool:
                action.nargs, action.const = "?", True

    def with_whole_keys(self, argument: str) -> str:
        """Have --model.options.head.units 8 give one key, `head.units`: see KEY_DOT."""
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
    """Bring jsonargparse's and pydantic's several lines down to what the user must know, on one.

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
    text = text.replace("Got value:", "received").replace("typing.", "").replace("Value error, ", "")
    # Where two settings contradict, the whole section that has them is quoted; the message names them.
    text = re.sub(r",? received \{.*\}$", "", text).removeprefix(": ")
    text = re.sub(r"<class '(\w+)'>", r"\1", text)
    unknown = _UNKNOWN.search(text)
    if unknown:
        name = next(group for group in unknown.groups() if group).split("=")[0]
        nearest = difflib.get_close_matches(name, [*known, *(key.rsplit(".", 1)[-1] for key in known)], n=1)
        text += f"; did you mean {nearest[0]}?" if nearest else "; see --help for the known ones"
    return text
