"""Printing tables, and the parts that several tables share."""

from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping

# A table with a row per class shows at most this many classes, because an image set may have 1,000.
CLASSES_SHOWN = 10

_FILE_WIDTH = 200


def show(*tables: RenderableType) -> None:
    """Print tables to standard output. A file or a pipe gets wide lines, so that no value is cut."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_FILE_WIDTH)
    console.print(*tables, sep="\n")


def pairs_table(title: str) -> Table:
    """Return an empty table for names and values."""
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def by_code(counts: "Mapping[str, int]") -> str:
    """Return counts by code in parentheses.

    >>> by_code({"truncated": 1200, "empty_file": 1}), by_code({})
    (' (1,200 truncated, 1 empty_file)', '')
    """
    return f" ({', '.join(f'{count:,} {code}' for code, count in counts.items())})" if counts else ""
