"""The table of doctor."""

from collections.abc import Sequence
from itertools import groupby

from rich.table import Table
from rich.text import Text

from pipelines.doctor.examination import NOT_CHECKED, OK, PROBLEM, Finding

_STYLES = {OK: "green", PROBLEM: "bold red", NOT_CHECKED: "dim"}


def findings_table(findings: Sequence[Finding]) -> Table:
    """Return a row per check: its verdict, what it found, and what to do, or why it was not checked."""
    table = Table(title="sparkcnn doctor", title_justify="left")
    table.add_column("check", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("found, and what to do", overflow="fold")
    for _, part in groupby(findings, key=lambda finding: finding.part):
        table.add_section()
        for finding in part:
            text = "\n".join(filter(None, (finding.found, finding.note)))
            table.add_row(Text(finding.name), Text(finding.verdict, style=_STYLES[finding.verdict]), Text(text))
    return table
