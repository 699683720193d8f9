"""One task's share of settling a set: data files whose rows are not as decided are written anew, the others stand.

Tasks write each image where its own hash says. Which images are duplicates, what label a class has, or a split that
depends on other images is known only when all are in the ledger; few data files differ from that, mostly none.

Plain Python without Spark: `pipelines.ingest.flow` runs one `rewrite_parts` a task.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import pyarrow as pa

from cnnlib.image_set import contract, ledger
from cnnlib.image_set.ledger import KEPT, OUTCOME, PART, ROW, SPLIT
from cnnlib.image_set.splits import SPLITS
from cnnlib.image_set.summary import LedgerSummary
from cnnlib.image_set.thumbnails import thumbnail_png
from cnnlib.image_set.writer import LEDGER_ROWS_PER_ROW_GROUP
from cnnlib.sealed.frozen.images import ImageSpec
from cnnlib.storage.folder import Folder, part_name
from cnnlib.storage.parts import Files, PartFile, PartWriter, joined, row_groups_of

# Conflicts in one task whose picture is kept for the report.
THUMBNAILS = 8
# Rows of the ledger that wait to be written.
_BATCH_ROWS = 1_000

Row = dict[str, Any]


@dataclass(frozen=True)
class RewritePlan:
    """What every task has in common. `parts` are the data files there are, by path."""

    folder: Folder
    run_id: str
    classes: tuple[str, ...]
    parts: Mapping[str, PartFile]
    rows_per_row_group: int
    spec: ImageSpec


@dataclass
class RewrittenParts:
    """What one task's rows add up to, and the files that hold them. They add up with `+`."""

    tally: LedgerSummary = field(default_factory=LedgerSummary)
    files: Files = field(default_factory=dict)

    def __add__(self, other: "RewrittenParts") -> "RewrittenParts":
        return RewrittenParts(
            self.tally + other.tally,
            joined(self.files, other.files),
        )


def rewrite_parts(plan: RewritePlan, batches: Iterable[pa.RecordBatch], task: int, attempt: int) -> RewrittenParts:
    """Bring the data files to what the ledger's rows say, write these rows and the rejects, and add all up.

    `batches` have the ledger's columns, all rows of a data file one after the other, in their order in it.
    """
    name = part_name(plan.run_id, task, attempt)
    with ExitStack() as stack:

        def writer(folder: str, schema: pa.Schema, rows_per_row_group: int) -> PartWriter:
            return stack.enter_context(PartWriter(plan.folder, f"{folder}/{name}", schema, rows_per_row_group))

        writers = {split: writer(split, contract.SCHEMA, plan.rows_per_row_group) for split in SPLITS}
        writers[contract.REJECTS] = writer(contract.REJECTS, contract.REJECTS_SCHEMA, LEDGER_ROWS_PER_ROW_GROUP)
        writers[ledger.LEDGER] = writer(ledger.LEDGER, ledger.SCHEMA, LEDGER_ROWS_PER_ROW_GROUP)
        return _PartRewriter(plan, writers).run(row for batch in batches for row in batch.to_pylist())


def summarise_rows(batches: Iterable[pa.RecordBatch], task: int, attempt: int) -> LedgerSummary:
    """Add a task's rows of a settled ledger up, and write nothing."""
    tally = LedgerSummary()
    for batch in batches:
        for row in batch.to_pylist():
            tally.add(row)
    return tally


class _PartRewriter:
    def __init__(self, plan: RewritePlan, writers: dict[str, PartWriter]) -> None:
        self._plan = plan
        self._writers = writers
        self._label_of = {name: label for label, name in enumerate(plan.classes)}
        self._settled = RewrittenParts()
        self._pictured = 0
        self._waiting: dict[str, list[Row]] = {ledger.LEDGER: [], contract.REJECTS: []}

    def run(self, rows: Iterator[Row]) -> RewrittenParts:
        for path, group in groupby(rows, key=lambda row: row[PART]):
            if path is None:
                self._note(group)
            else:
                self._note(self._bring_to(path, list(group)))
        for folder in self._waiting:
            self._write_waiting(folder)
        for folder, writer in self._writers.items():
            file = writer.close()
            if file is not None:
                self._settled.files.setdefault(folder, []).append(file)
        return self._settled

    def _bring_to(self, path: str, rows: list[Row]) -> list[Row]:
        """Have the rows of a data file be as they say. Gives them, with where their pixels are then."""
        part = self._plan.parts[path]
        split = path.split("/")[0]
        if len(rows) == part.rows and all(
            row[OUTCOME] == KEPT and row[SPLIT] == split and row[contract.LABEL] == self._label(row) for row in rows
        ):
            self._settled.files.setdefault(split, []).append(part)
            return rows
        waiting = deque(rows)
        brought: list[Row] = []
        for first, table in row_groups_of(self._plan.folder, path, [row[ROW] for row in rows]):
            inside = []
            while waiting and waiting[0][ROW] < first + table.num_rows:
                inside.append(waiting.popleft())
            brought += self._write_anew(table, first, inside)
        return brought

    def _write_anew(self, table: pa.Table, first: int, rows: list[Row]) -> list[Row]:
        moved = [self._dropped(row, table, row[ROW] - first) for row in rows if row[OUTCOME] != KEPT]
        for split in SPLITS:
            staying = [row for row in rows if row[OUTCOME] == KEPT and row[SPLIT] == split]
            if not staying:
                continue
            writer = self._writers[split]
            labels = [self._label(row) for row in staying]
            images = table.take([row[ROW] - first for row in staying])
            images = images.set_column(images.schema.get_field_index(contract.LABEL), contract.LABEL, [labels])
            moved += [
                row | {PART: writer.path, ROW: number, contract.LABEL: label}
                for number, (row, label) in enumerate(zip(staying, labels, strict=True), writer.rows)
            ]
            for batch in images.cast(contract.SCHEMA).to_batches():
                writer.write(batch)
        return moved

    def _dropped(self, row: Row, table: pa.Table, index: int) -> Row:
        """A row whose pixels go; of the first conflicts the report will show them."""
        picture = row[ledger.THUMBNAIL]
        if row[ledger.CONFLICTING] and self._pictured < THUMBNAILS:
            self._pictured += 1
            pixels = contract.stored_pixels(table[contract.IMAGE][index].as_py(), self._plan.spec)
            picture = thumbnail_png(pixels)
        return row | {PART: None, ROW: None, ledger.THUMBNAIL: picture}

    def _label(self, row: Row) -> int:
        return self._label_of.get(row[ledger.CLASS_NAME], -1)

    def _note(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self._settled.tally.add(row)
            self._wait(ledger.LEDGER, row)
            if row[contract.CODE] is not None:
                self._wait(contract.REJECTS, {name: row[name] for name in contract.REJECTS_SCHEMA.names})

    def _wait(self, folder: str, row: Row) -> None:
        self._waiting[folder].append(row)
        if len(self._waiting[folder]) >= _BATCH_ROWS:
            self._write_waiting(folder)

    def _write_waiting(self, folder: str) -> None:
        schema = ledger.SCHEMA if folder == ledger.LEDGER else contract.REJECTS_SCHEMA
        if self._waiting[folder]:
            self._writers[folder].write(pa.RecordBatch.from_pylist(self._waiting[folder], schema=schema))
            self._waiting[folder] = []
