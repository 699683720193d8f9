"""Labels as other tools write them: one spelling of each, and their order."""

import ast
import math
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from cnnlib.errors import SourceError

_NUMBER = re.compile(r"-?\d+(\.\d+)?")
# pandas makes floats of a column of whole numbers if one of them is missing.
_WHOLE = re.compile(r"(-?\d+)\.0+")
# What pandas writes as text for a missing value. None, null and NA may be names of classes.
MISSING = ("", "nan", "NaN", "<NA>")


def label_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return the classes in the order of their labels: by value if all are numbers, else by name.

    >>> label_order(["10", "9"]), label_order(["b", "10", "9"]), label_order(["10.5", "-1", "007"])
    (('9', '10'), ('10', '9', 'b'), ('-1', '007', '10.5'))
    """
    distinct = set(names)
    if all(map(_NUMBER.fullmatch, distinct)):
        return tuple(sorted(distinct, key=lambda name: (Decimal(name), name)))
    return tuple(sorted(distinct))


def label_text(value: Any, where: str) -> str | None:
    """Return the label of one value that a JSON or YAML parser gave, or None if it is missing.

    Whole numbers are written without a decimal point. `where` is for the message. Raises SourceError for a list or an
    object, because an image has one label.

    >>> [label_text(value, "") for value in ("007", 7, 7.0, 0.5, True, float("nan"), None, " cat ")]
    ['007', '7', '7', '0.5', 'true', None, None, 'cat']
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, list | dict):
        raise SourceError(
            f"{where} is {_shortened(value)}; several labels for one image are not supported: give each image one label"
        )
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    return None if text in MISSING else text


def check_no_lists(names: Iterable[str], where: str) -> None:
    """Raise SourceError if labels are lists that a tool wrote as text, such as "[0, 1]".

    >>> check_no_lists(["cat", "[dog", "[background]"], "labels.csv")
    """
    listed = next((name for name in sorted(names) if _is_list(name)), None)
    if listed is not None:
        raise SourceError(
            f"{where} has the label {_shortened(listed)}; several labels for one image are not supported: give each "
            "image one label"
        )


def _is_list(name: str) -> bool:
    if not re.fullmatch(r"\[.*\]|\{.*\}", name, re.DOTALL):
        return False
    try:
        return isinstance(ast.literal_eval(name), list | dict | set)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return "," in name


def without_decimals(names: Iterable[str]) -> dict[str, str]:
    """Return how whole numbers are written that a tool gave a decimal point, if all labels are whole numbers.

    >>> without_decimals(["0.0", "1.0", "10.0"])
    {'0.0': '0', '1.0': '1', '10.0': '10'}
    >>> without_decimals(["1.0", "1.5"]), without_decimals(["1.0", "v2"])
    ({}, {})
    """
    every = sorted(set(names))
    if not all(_WHOLE.fullmatch(name) or re.fullmatch(r"-?\d+", name) for name in every):
        return {}
    return {name: match[1] for name in every if (match := _WHOLE.fullmatch(name))}


def _shortened(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
