"""Small image sets, written by the real writer without Spark, and rows as a source would give them."""

import doctest
import hashlib
import inspect
from collections.abc import Callable, Sequence
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cnnlib.config import SplitSettings
from cnnlib.image_set.contract import CODE, MESSAGE, PATH, REJECTS, SCHEMA, SIZE_BYTES, Counts, ImageSet, Split
from cnnlib.image_set.contract import publish_image_set as publish
from cnnlib.image_set.ledger import (
    CLASS_NAME,
    CONFLICTING,
    FILE,
    GIVEN_SPLIT,
    GROUP,
    KEPT,
    LEDGER,
    OUTCOME,
    PART,
    REJECTED,
    SPLIT,
)
from cnnlib.image_set.ledger import SCHEMA as LEDGER_SCHEMA
from cnnlib.image_set.rewrite_parts import RewritePlan, RewrittenParts, rewrite_parts
from cnnlib.image_set.splits import SPLITS
from cnnlib.image_set.writer import CONTENT, WritePlan, WrittenImages, write_images
from cnnlib.sealed.frozen.images import ImageSpec
from cnnlib.storage.folder import new_run_id, open_folder, part_name
from cnnlib.storage.parts import PartFile

SOURCE_SCHEMA = pa.schema(
    [
        (FILE, pa.string()),
        (PATH, pa.string()),
        (CONTENT, pa.binary()),
        (CLASS_NAME, pa.string()),
        (GROUP, pa.string()),
        (GIVEN_SPLIT, pa.string()),
        (CODE, pa.string()),
        (MESSAGE, pa.string()),
        (SIZE_BYTES, pa.int64()),
    ]
)


def source_row(content: bytes, class_name: str | None, /, **columns: Any) -> dict[str, Any]:
    """Return a row as a source gives it. `columns` replace the default values."""
    path = f"{class_name}/{hashlib.sha256(content).hexdigest()[:8]}"
    defaults = dict.fromkeys(SOURCE_SCHEMA.names) | {
        FILE: path,
        PATH: path,
        CONTENT: content,
        CLASS_NAME: class_name,
        SIZE_BYTES: len(content),
    }
    return defaults | columns


def run_examples(function: Callable[..., Any]) -> doctest.TestResults:
    """Run the examples in a docstring, also those marked +SKIP because they need a set; return (failed, run)."""
    function = inspect.unwrap(function)
    text = (function.__doc__ or "").replace("# doctest: +SKIP", "")
    examples = doctest.DocTestParser().get_doctest(text, dict(function.__globals__), function.__name__, None, None)
    return doctest.DocTestRunner().run(examples)


def in_batches(rows: Sequence[dict[str, Any]], size: int = 100) -> list[pa.RecordBatch]:
    return [
        pa.RecordBatch.from_pylist(list(rows[start : start + size]), schema=SOURCE_SCHEMA)
        for start in range(0, len(rows), size)
    ]


def plan_for(path: Path, spec: ImageSpec, classes: tuple[str, ...], **options: Any) -> WritePlan:
    """Return the plan of an ingest of arrays with the spec's shape. `options` replace the default values."""
    values = {
        "folder": open_folder(str(path)),
        "run_id": new_run_id(),
        "spec": spec,
        "classes": classes,
        "raw_shape": spec.shape,
        "split": SplitSettings(),
        "rows_per_row_group": 50,
    }
    return WritePlan(**(values | options))


def ledger_rows(plan: WritePlan, written: Sequence[WrittenImages]) -> list[dict[str, Any]]:
    """Read the ledger rows of all tasks, in order."""
    return [
        row
        for of_task in written
        for file in of_task.files.get(LEDGER, ())
        for row in pq.read_table(plan.folder.fs.open(plan.folder.path(file.path))).to_pylist()
    ]


def as_written(row: dict[str, Any]) -> dict[str, Any]:
    """Decide a ledger row as if there were no other image: it is kept in the split that its task gave it."""
    kept = row[CODE] is None
    split = row[PART].split("/")[0] if kept else None
    return row | {OUTCOME: KEPT if kept else REJECTED, SPLIT: split, CONFLICTING: False}


def rewritten_parts_of(
    plan: WritePlan, written: Sequence[WrittenImages], decided: Sequence[dict[str, Any]] | None = None
) -> RewrittenParts:
    """Rewrite the part files in one task. `decided` are the ledger rows; by default each is decided `as_written`."""
    rows = [as_written(row) for row in ledger_rows(plan, written)] if decided is None else decided
    rows = sorted(rows, key=lambda row: (row[PART] or "", row["row"] or 0))
    files = reduce(add, written, WrittenImages()).files
    parts = {file.path: file for split in SPLITS for file in files.get(split, ())}
    rewrite_plan = RewritePlan(plan.folder, plan.run_id, plan.classes, parts, plan.rows_per_row_group, plan.spec)
    return rewrite_parts(rewrite_plan, [pa.RecordBatch.from_pylist(rows, schema=LEDGER_SCHEMA)], 99, 0)


def image_set_of(written: Sequence[WrittenImages], plan: WritePlan) -> ImageSet:
    """Return the image set that an ingest would publish of its tasks' images, if no image depended on another."""
    rewritten = rewritten_parts_of(plan, written)
    summary = rewritten.summary
    mean, std = summary.channel_statistics(plan.spec)
    return ImageSet(
        folder=plan.folder,
        classes=plan.classes,
        image=plan.spec,
        counts=Counts(summary.found, summary.outcomes[KEPT], 0, summary.outcomes[REJECTED]),
        splits={
            split: Split(
                summary.rows(split),
                tuple(summary.class_counts[split, name] for name in plan.classes),
                tuple(sorted(rewritten.files.get(split, ()), key=lambda file: file.path)),
            )
            for split in SPLITS
        },
        mean=mean,
        std=std,
        settings={},
        fingerprint=summary.fingerprint(plan.spec, plan.classes, plan.quality),
        rejected_by_code=dict(summary.rejected),
        rejects=tuple(rewritten.files.get(REJECTS, ())),
        ledger=tuple(rewritten.files[LEDGER]),
        source_digest="digest",
    )


def write_image_set(
    path: Path,
    images: np.ndarray,
    labels: Sequence[int],
    splits: Sequence[str],
    *,
    classes: tuple[str, ...],
    files: int = 3,
    rows_per_row_group: int = 50,
) -> ImageSet:
    """Write and publish images (rows, height, width, channels) uint8 with their labels; row i goes into splits[i]."""
    plan = plan_for(path, ImageSpec(*images.shape[1:]), classes, rows_per_row_group=rows_per_row_group)
    rows = [
        source_row(image.tobytes(), classes[label], **{GIVEN_SPLIT: split})
        for image, label, split in zip(images, labels, splits, strict=True)
    ]
    # Each task takes the next rows, so the published order is the given one.
    bounds = np.linspace(0, len(rows), files + 1).astype(int)
    written = [
        write_images(plan, in_batches(rows[start:stop]), task, attempt=0)
        for task, (start, stop) in enumerate(zip(bounds, bounds[1:], strict=False))
    ]
    image_set = image_set_of(written, plan)
    publish(image_set)
    return image_set


def write_train_split(
    path: Path,
    stored: Sequence[bytes],
    labels: Sequence[int],
    *,
    spec: ImageSpec,
    classes: tuple[str, ...],
    row_groups: Sequence[Sequence[int]],
) -> ImageSet:
    """Publish stored images, all in train. `row_groups` has the rows of each row group, file by file."""
    folder, run_id = open_folder(str(path)), new_run_id()
    (path / "train").mkdir(parents=True)
    files, start = [], 0
    for task, sizes in enumerate(row_groups):
        name = f"train/{part_name(run_id, task, 0)}"
        with pq.ParquetWriter(folder.path(name), SCHEMA, use_dictionary=False) as writer:
            for size in sizes:
                rows = range(start, start + size)
                columns = [[str(row) for row in rows]] * 2 + [stored[start : rows.stop], labels[start : rows.stop]]
                writer.write_table(
                    pa.table([pa.array(*typed) for typed in zip(columns, SCHEMA.types, strict=True)], SCHEMA)
                )
                start = rows.stop
        files.append(PartFile(name, sum(sizes), folder.fs.size(folder.path(name)), len(sizes)))
    assert start == len(stored) == len(labels)
    class_counts = tuple(np.bincount(labels, minlength=len(classes)).tolist())
    empty = Split(0, (0,) * len(classes), ())
    image_set = ImageSet(
        folder=folder,
        classes=classes,
        image=spec,
        counts=Counts(start, start, 0, 0),
        splits={"train": Split(start, class_counts, tuple(files)), "val": empty, "test": empty},
        mean=(0.1307,) * spec.channels,
        std=(0.3081,) * spec.channels,
        settings={},
        fingerprint="0" * 64,
    )
    publish(image_set)
    return image_set
