"""The names of our tags of runs, models and versions. Every registry takes them.

Unity Catalog allows only letters, digits and _ in the key of a tag, and refuses a value of more than 1,000 characters.
Earlier states of sparkcnn had dots in their keys; `read_tag` still finds those tags.
"""

import re
from collections.abc import Mapping

MOST_CHARACTERS = 1000
_PREFIX = "sparkcnn"


def tag_key(*parts: str) -> str:
    """Return the key of a tag.

    >>> tag_key("champion", "by"), tag_key("champion-eu", "by")
    ('sparkcnn_champion_by', 'sparkcnn_champion_2d_eu_by')
    """
    return "_".join([_PREFIX, *(re.sub(r"\W", _as_number, part, flags=re.ASCII) for part in parts)])


def _as_number(found: re.Match[str]) -> str:
    """Return the number of a character between underscores, so that a-b and a_b have different keys."""
    return f"_{ord(found[0]):x}_"


def tag_value(value: str) -> str:
    """Return a value that every registry takes.

    >>> len(tag_value("because " * 1000))
    1000
    """
    return value if len(value) <= MOST_CHARACTERS else value[: MOST_CHARACTERS - 1] + "…"


def read_tag(tags: Mapping[str, str], *parts: str) -> str | None:
    """Return the value of a tag, which may have the key of an earlier state, or None.

    >>> read_tag({"sparkcnn.champion.by": "Ann"}, "champion", "by")
    'Ann'
    """
    value = tags.get(tag_key(*parts))
    return tags.get(earlier_key(*parts)) if value is None else value


def earlier_key(*parts: str) -> str:
    """Return the key that earlier states of sparkcnn gave a tag."""
    return ".".join([_PREFIX, *parts])
