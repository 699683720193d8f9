"""Parse manifests that are text, as spreadsheets, pandas, annotation tools and people write them: CSV and JSON.

What is certain is accepted: byte order marks, semicolons and tabs, blanks after commas, JSON lines, JSON arrays, JSON
over several lines. All else is refused in one line that quotes what was found.
"""

import codecs
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cnnlib.errors import SourceError

_DELIMITERS = (",", ";", "\t", "|")
# The longer marks come first: that of UTF-32 begins like that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# A message quotes this many characters.
_QUOTED = 60


@dataclass(frozen=True)
class Entries:
    """The entries of a manifest: the names of its columns, and the values of each entry by column name."""

    columns: tuple[str, ...]
    rows: Sequence[Mapping[str, Any]]


def parse_manifest(content: bytes, path: str, kind: str, encoding: str | None = None) -> Entries:
    """Parse a manifest of the kind csv or jsonl. `path` is for the messages, which are those of SourceError.

    `encoding` is the name of a text encoding as Python knows it; None finds UTF-8, and UTF-16 and UTF-32 with a mark.

    >>> parse_manifest(b"path; label\\ncat/a.png; cat\\n", "a.csv", "csv")
    Entries(columns=('path', 'label'), rows=[{'path': 'cat/a.png', 'label': 'cat'}])
    >>> parse_manifest(b'[{"path": "a.png", "label": 7}]', "a.json", "jsonl").rows
    [{'path': 'a.png', 'label': 7}]
    """
    text = _decode(content, path, encoding)
    return _parse_csv(text, path) if kind == "csv" else _parse_json(text, path)


def _decode(content: bytes, path: str, encoding: str | None) -> str:
    found = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    if found is None and encoding is None and len(content) > 3 and b"\0" in content[:4]:
        # Text in Western letters without a mark: every second byte is zero.
        found = "utf-16-le" if content[1] == 0 else "utf-16-be"
    used = encoding or found or "utf-8"
    try:
        return content.decode(used).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        around = content[max(0, error.start - 10) : error.start + 10]
        advice = (
            "" if encoding else " or name its encoding, e.g. --source.encoding cp1252 for Windows in Western Europe"
        )
        raise SourceError(
            f"{path} is not {used} text: line {line} has the byte {content[error.start]:#04x} in {around!r}; save the "
            f"file as UTF-8,{advice}"
        ) from error
    except LookupError as error:
        raise SourceError(f"source.encoding={encoding} is no encoding that Python knows; e.g. utf-8, cp1252") from error


def _parse_csv(text: str, path: str) -> Entries:
    first = next((line for line in text.splitlines() if line.strip()), "")
    try:
        delimiter = max(_DELIMITERS, key=lambda one: len(next(csv.reader([first], delimiter=one), [])))
    except csv.Error as error:
        raise SourceError(f"{path} is no CSV: its first line is {_quoted(first)} ({error})") from error
    # Spreadsheets and pandas double a quote within quotes. Some people put a blank after each comma.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    rows = _numbered(reader, path)
    _, header = next(rows, (0, []))
    columns = tuple(name.strip() for name in header)
    twice = next((name for name, count in Counter(map(str.lower, columns)).items() if count > 1), None)
    if twice is not None:
        raise SourceError(
            f"{path} has the column {twice} twice in its first line, {_quoted(first)}; remove one of them"
        )
    entries = []
    for line, values in rows:
        if len(values) != len(columns):
            raise SourceError(
                f"{path}: line {line} has {len(values)} values, but the first line has {len(columns)} names; it is "
                f"{_quoted(delimiter.join(values))}"
            )
        entries.append(dict(zip(columns, values, strict=True)))
    return Entries(columns, entries)


def _numbered(reader: Any, path: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not empty, each with the number of its last line."""
    try:
        for values in reader:
            if any(value.strip() for value in values):
                yield reader.line_num, values
    except csv.Error as error:
        raise SourceError(f"{path} is damaged at line {reader.line_num}: {error}; check its quotes") from error


def _parse_json(text: str, path: str) -> Entries:
    values = list(_json_values(text, path))
    if len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    odd = next((value for value in values if not isinstance(value, dict)), None)
    if odd is not None:
        raise SourceError(
            f"{path} has {_quoted(json.dumps(odd))} where an object with path and label is expected; write one object "
            "per line, or one list of objects"
        )
    # Keep the order of the first entries; later ones may have more.
    columns = tuple(dict.fromkeys(name for value in values for name in value))
    if len(values) == 1 and all(isinstance(value, list | dict) for value in values[0].values()):
        raise SourceError(
            f"{path} is one object with the keys {_quoted(', '.join(columns))}; write one object per image, with path "
            "and label: one per line, or one list of them"
        )
    return Entries(columns, values)


def _json_values(text: str, path: str) -> Iterator[Any]:
    """Yield the JSON values that stand one after another in a text. A value may take several lines."""
    decoder = json.JSONDecoder()
    position = 0
    while True:
        position = re.compile(r"\s*").match(text, position).end()  # type: ignore[union-attr]
        if position == len(text):
            return
        try:
            value, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:  # also for a number of thousands of digits
            line = text.count("\n", 0, position) + 1
            raise SourceError(
                f"{path} cannot be parsed from line {line} on, {_quoted(text[position:].partition(chr(10))[0])}: "
                f"{getattr(error, 'msg', error)}; is it cut?"
            ) from error
        yield value


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _QUOTED else f"{text[:_QUOTED]}…")
