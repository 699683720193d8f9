"""Rewrite the part files of one task whose rows differ from the decisions in the ledger; leave the others as they are.

A task of ingest writes each image into the split that the image's own hash gives. Three things are known only when all
images are in the ledger: which images are duplicates, which label each class has, and any split that depends on other
images. Few part files differ from these decisions, usually none.

Plain Python without Spark: `pipelines.ingest.flow` runs `rewrite_parts` once per Spark task.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import pyarrow as pa

from cnnlib.errors import ImageSetError
from cnnlib.image_set import contract, ledger
from cnnlib.image_set.ledger import KEPT, OUTCOME, PART, ROW, SPLIT
from cnnlib.image_set.splits import SPLITS
from cnnlib.image_set.summary import LedgerSummary
from cnnlib.image_set.thumbnails import thumbnail_png
from cnnlib.image_set.writer import LEDGER_ROWS_PER_ROW_GROUP
from cnnlib.sealed.frozen.images import ImageSpec
from cnnlib.storage.folder import Folder, part_name
from cnnlib.storage.parts import FilesByFolder, PartFile, PartWriter, merge_files, row_groups_with

# Of its conflicting images that lose their pixels, each task keeps this many thumbnails for the report.
THUMBNAILS = 8
# Rows of the ledger and of the rejects are written in batches of this size.
_BATCH_ROWS = 1_000

Row = dict[str, Any]


@dataclass(frozen=True)
class RewritePlan:
    """Everything that is the same for all tasks. `parts` are the existing part files of the splits, by path."""

    folder: Folder
    run_id: str
    classes: tuple[str, ...]
    parts: Mapping[str, PartFile]
    rows_per_row_group: int
    spec: ImageSpec


@dataclass
class RewrittenParts:
    """The summary of one task's rows, and the files that hold them now. `+` adds several tasks up."""

    summary: LedgerSummary = field(default_factory=LedgerSummary)
    files: FilesByFolder = field(default_factory=dict)

    def __add__(self, other: "RewrittenParts") -> "RewrittenParts":
        return RewrittenParts(
            self.summary + other.summary,
            merge_files(self.files, other.files),
        )


def rewrite_parts(plan: RewritePlan, batches: Iterable[pa.RecordBatch], task: int, attempt: int) -> RewrittenParts:
    """Make the part files agree with the given ledger rows, write these rows and the rejects, and add them up.

    `batches` have the ledger's columns. All rows of a part file follow each other, in their order in the file.
    """
    name = part_name(plan.run_id, task, attempt)
    with ExitStack() as stack:

        def writer(folder: str, schema: pa.Schema, rows_per_row_group: int) -> PartWriter:
            return stack.enter_context(PartWriter(plan.folder, f"{folder}/{name}", schema, rows_per_row_group))

        writers = {split: writer(split, contract.SCHEMA, plan.rows_per_row_group) for split in SPLITS}
        writers[contract.REJECTS] = writer(contract.REJECTS, contract.REJECTS_SCHEMA, LEDGER_ROWS_PER_ROW_GROUP)
        writers[ledger.LEDGER] = writer(ledger.LEDGER, ledger.SCHEMA, LEDGER_ROWS_PER_ROW_GROUP)
        return _PartRewriter(plan, writers).run(row for batch in batches for row in batch.to_pylist())


class _PartRewriter:
    def __init__(self, plan: RewritePlan, writers: dict[str, PartWriter]) -> None:
        self._plan = plan
        self._writers = writers
        self._label_of = {name: label for label, name in enumerate(plan.classes)}
        self._rewritten = RewrittenParts()
        self._thumbnails = 0
        self._buffered: dict[str, list[Row]] = {ledger.LEDGER: [], contract.REJECTS: []}

    def run(self, rows: Iterator[Row]) -> RewrittenParts:
        for path, group in groupby(rows, key=lambda row: row[PART]):
            if path is None:
                self._record(group)
            else:
                self._record(self._apply_decisions(path, list(group)))
        for folder in self._buffered:
            self._flush(folder)
        for folder, writer in self._writers.items():
            file = writer.close()
            if file is not None:
                self._rewritten.files.setdefault(folder, []).append(file)
        return self._rewritten

    def _apply_decisions(self, path: str, rows: list[Row]) -> list[Row]:
        """Make a part file agree with its ledger rows. Return the rows with the new location of their pixels."""
        part = self._plan.parts[path]
        split = path.split("/")[0]
        if len(rows) == part.rows and all(
            row[OUTCOME] == KEPT and row[SPLIT] == split and row[contract.LABEL] == self._label(row) for row in rows
        ):
            self._rewritten.files.setdefault(split, []).append(part)
            return rows
        remaining = deque(rows)
        moved: list[Row] = []
        for first, table in row_groups_with(self._plan.folder, path, [row[ROW] for row in rows]):
            inside = []
            while remaining and remaining[0][ROW] < first + table.num_rows:
                inside.append(remaining.popleft())
            moved += self._rewrite_row_group(table, first, inside)
        return moved

    def _rewrite_row_group(self, table: pa.Table, first: int, rows: list[Row]) -> list[Row]:
        moved = [self._without_pixels(row, table, row[ROW] - first) for row in rows if row[OUTCOME] != KEPT]
        for split in SPLITS:
            kept = [row for row in rows if row[OUTCOME] == KEPT and row[SPLIT] == split]
            if not kept:
                continue
            writer = self._writers[split]
            labels = [self._label(row) for row in kept]
            images = table.take([row[ROW] - first for row in kept])
            images = images.set_column(images.schema.get_field_index(contract.LABEL), contract.LABEL, [labels])
            moved += [
                row | {PART: writer.path, ROW: number, contract.LABEL: label}
                for number, (row, label) in enumerate(zip(kept, labels, strict=True), writer.rows)
            ]
            for batch in images.cast(contract.SCHEMA).to_batches():
                writer.write(batch)
        return moved

    def _without_pixels(self, row: Row, table: pa.Table, index: int) -> Row:
        """Return a row whose pixels are dropped. The first conflicting ones get a thumbnail for the report."""
        thumbnail = row[ledger.THUMBNAIL]
        if row[ledger.CONFLICTING] and self._thumbnails < THUMBNAILS:
            self._thumbnails += 1
            pixels = contract.stored_pixels(table[contract.IMAGE][index].as_py(), self._plan.spec)
            thumbnail = thumbnail_png(pixels)
        return row | {PART: None, ROW: None, ledger.THUMBNAIL: thumbnail}

    def _label(self, row: Row) -> int:
        if not self._label_of:
            return -1
        try:
            return self._label_of[row[ledger.CLASS_NAME]]
        except KeyError as error:
            raise ImageSetError(
                f"{row[contract.PATH]} has the class {row[ledger.CLASS_NAME]}, which is none of the set's; nothing was "
                "published. Ingest again with --output.overwrite true, and report this fault"
            ) from error

    def _record(self, rows: Iterable[Row]) -> None:
        """Count rows, and write them to the ledger; rejects are written to the rejects too."""
        for row in rows:
            self._rewritten.summary.add(row)
            self._buffer(ledger.LEDGER, row)
            if row[contract.CODE] is not None:
                self._buffer(contract.REJECTS, {name: row[name] for name in contract.REJECTS_SCHEMA.names})

    def _buffer(self, folder: str, row: Row) -> None:
        self._buffered[folder].append(row)
        if len(self._buffered[folder]) >= _BATCH_ROWS:
            self._flush(folder)

    def _flush(self, folder: str) -> None:
        schema = ledger.SCHEMA if folder == ledger.LEDGER else contract.REJECTS_SCHEMA
        if self._buffered[folder]:
            self._writers[folder].write(pa.RecordBatch.from_pylist(self._buffered[folder], schema=schema))
            self._buffered[folder] = []
