"""One setting that holds several whole numbers."""

import re

_COUNTS = re.compile(r"\s*0*[1-9]\d{0,6}\s*(,\s*0*[1-9]\d{0,6}\s*)*", re.ASCII)


def parse_counts(text: str | int) -> tuple[int, ...]:
    """Return the whole numbers in a text that commas separate, each once. Raises ValueError for any other text.

    >>> parse_counts("16, 64,16"), parse_counts(8)
    ((16, 64), (8,))
    """
    if not _COUNTS.fullmatch(str(text)):
        raise ValueError("give whole numbers of 1 or more, separated by commas, e.g. 16,64,256")
    return tuple(dict.fromkeys(map(int, str(text).split(","))))
