"""Small image sets, written by the real writer but without Spark, and the rows that a source would give for them."""

import hashlib
from collections.abc import Sequence
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cnnlib.config import SplitSettings
from cnnlib.images import ImageSpec
from cnnlib.imageset import CODE, IMAGE_ID, MESSAGE, PATH, REJECTS, SCHEMA, SIZE_BYTES, Counts, ImageSet, Split
from cnnlib.imageset import publish_image_set as publish
from cnnlib.imageset_writer import (
    CLASS_NAME,
    CONTENT,
    COPY,
    GIVEN_SPLIT,
    Share,
    SharePlan,
    channel_statistics,
    fingerprint,
    write_share,
)
from cnnlib.parts import PartFile
from cnnlib.splits import SPLITS
from cnnlib.storage import new_run_id, open_folder, part_name

SOURCE_SCHEMA = pa.schema(
    [
        (IMAGE_ID, pa.string()),
        (PATH, pa.string()),
        (CONTENT, pa.binary()),
        (CLASS_NAME, pa.string()),
        (GIVEN_SPLIT, pa.string()),
        (COPY, pa.int32()),
        (CODE, pa.string()),
        (MESSAGE, pa.string()),
        (SIZE_BYTES, pa.int64()),
    ]
)


def source_row(content: bytes, class_name: str | None, /, **columns: Any) -> dict[str, Any]:
    """A row as a source gives it; `columns` set others than the plain case's."""
    return {
        IMAGE_ID: hashlib.sha256(content).hexdigest(),
        PATH: f"{class_name}/{hashlib.sha256(content).hexdigest()[:8]}",
        CONTENT: content,
        CLASS_NAME: class_name,
        GIVEN_SPLIT: None,
        COPY: 1,
        CODE: None,
        MESSAGE: None,
        SIZE_BYTES: len(content),
    } | columns


def copy_of(row: dict[str, Any], number: int = 2) -> dict[str, Any]:
    """A duplicate: its content is taken away, as ingest does."""
    return row | {CONTENT: None, COPY: number, PATH: f"{row[PATH]}-{number}"}


def in_batches(rows: Sequence[dict[str, Any]], size: int = 100) -> list[pa.RecordBatch]:
    return [
        pa.RecordBatch.from_pylist(list(rows[start : start + size]), schema=SOURCE_SCHEMA)
        for start in range(0, len(rows), size)
    ]


def plan_for(path: Path, spec: ImageSpec, classes: tuple[str, ...], **options: Any) -> SharePlan:
    """The plan of an ingest of arrays of the spec's shape; `options` set other fields."""
    values = {
        "folder": open_folder(str(path)),
        "run_id": new_run_id(),
        "spec": spec,
        "classes": classes,
        "raw_shape": spec.shape,
        "split": SplitSettings(),
        "rows_per_row_group": 50,
    }
    return SharePlan(**(values | options))


def image_set_of(shares: Sequence[Share], plan: SharePlan) -> ImageSet:
    """What an ingest would publish of its tasks' shares."""
    share = reduce(add, shares)
    mean, std = channel_statistics(share, plan.spec)
    return ImageSet(
        folder=plan.folder,
        classes=plan.classes,
        image=plan.spec,
        counts=Counts(share.found, share.kept, share.duplicate, share.rejected.total()),
        splits={
            split: Split(
                share.class_counts[split].total(),
                tuple(share.class_counts[split][label] for label in range(len(plan.classes))),
                tuple(share.files.get(split, ())),
            )
            for split in SPLITS
        },
        mean=mean,
        std=std,
        settings={},
        fingerprint=fingerprint(share, plan.spec, plan.classes),
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
    """Write and publish (rows, height, width, channels) uint8 with their labels, row i into splits[i]."""
    plan = plan_for(path, ImageSpec(*images.shape[1:]), classes, rows_per_row_group=rows_per_row_group)
    rows = [
        source_row(image.tobytes(), classes[label], **{GIVEN_SPLIT: split})
        for image, label, split in zip(images, labels, splits, strict=True)
    ]
    # Task after task takes the next rows, so that the published order is the given one.
    bounds = np.linspace(0, len(rows), files + 1).astype(int)
    shares = [
        write_share(plan, in_batches(rows[start:stop]), task, attempt=0)
        for task, (start, stop) in enumerate(zip(bounds, bounds[1:], strict=False))
    ]
    image_set = image_set_of(shares, plan)
    publish(image_set, reduce(add, shares).files.get(REJECTS, []))
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
    """Publish images as they are to be stored, all in train; `row_groups` has the rows of each, file by file."""
    folder, run_id = open_folder(str(path)), new_run_id()
    (path / "train").mkdir()
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
    publish(image_set, [])
    return image_set
