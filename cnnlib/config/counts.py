"""Several whole numbers as one setting."""

import re

_COUNTS = re.compile(r"\s*0*[1-9]\d{0,6}\s*(,\s*0*[1-9]\d{0,6}\s*)*", re.ASCII)


def parse_counts(text: str | int) -> tuple[int, ...]:
    """Whole numbers with commas between them, each once. Raises ValueError for anything else.

    >>> parse_counts("16, 64,16"), parse_counts(8)
    ((16, 64), (8,))
    """
    if not _COUNTS.fullmatch(str(text)):
        raise ValueError("whole numbers from 1 are needed, with commas between them, e.g. 16,64,256")
    return tuple(dict.fromkeys(map(int, str(text).split(","))))
