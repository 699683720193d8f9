"""One task's share of an image set: decode, assign to splits, write parts, and count everything on the way.

Plain Python without Spark: `pipelines.ingest` runs one `write_share` a task and adds up what they give.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from cnnlib import imageset
from cnnlib.config import SplitSettings
from cnnlib.errors import ImageError
from cnnlib.images import ImageSpec, decode_image, fit_array
from cnnlib.parts import PartFile, PartWriter
from cnnlib.splits import SPLITS, TRAIN, assign_split
from cnnlib.storage import Folder, part_name

# The columns that a source gives, besides imageset.PATH.
CONTENT = "content"
CLASS_NAME = "class_name"
GIVEN_SPLIT = "given_split"
# 1 for the first image of its content, 2 and more for its duplicates (their content is null).
COPY = "copy"

_FINGERPRINT_MODULUS = 2**256


@dataclass(frozen=True)
class SharePlan:
    """What every task of one ingest has in common. `raw_shape` is set where the source gives arrays, not files."""

    folder: Folder
    run_id: str
    spec: ImageSpec
    classes: tuple[str, ...]
    raw_shape: tuple[int, int, int] | None
    split: SplitSettings
    rows_per_row_group: int


@dataclass
class Share:
    """What one task wrote and counted. Shares of several tasks add up with `+`.

    `channel_sums` and `channel_square_sums` are exact integers over the train pixels; `content_sum` is the sum of
    the rows' digests modulo 2**256, which does not depend on their order (a multiset hash: D. Clarke et al.,
    "Incremental Multiset Hash Functions", 2003, MSet-Add-Hash).
    """

    found: int = 0
    duplicate: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    files: dict[str, list[PartFile]] = field(default_factory=dict)
    class_counts: dict[str, Counter[int]] = field(default_factory=dict)
    channel_sums: list[int] = field(default_factory=list)
    channel_square_sums: list[int] = field(default_factory=list)
    content_sum: int = 0

    def __add__(self, other: "Share") -> "Share":
        def add_lists(a: list[int], b: list[int]) -> list[int]:
            return [x + y for x, y in zip(a, b, strict=True)] if a and b else a or b

        return Share(
            found=self.found + other.found,
            duplicate=self.duplicate + other.duplicate,
            rejected=self.rejected + other.rejected,
            files={k: self.files.get(k, []) + other.files.get(k, []) for k in self.files | other.files},
            class_counts={
                k: self.class_counts.get(k, Counter()) + other.class_counts.get(k, Counter())
                for k in self.class_counts | other.class_counts
            },
            channel_sums=add_lists(self.channel_sums, other.channel_sums),
            channel_square_sums=add_lists(self.channel_square_sums, other.channel_square_sums),
            content_sum=(self.content_sum + other.content_sum) % _FINGERPRINT_MODULUS,
        )

    @property
    def kept(self) -> int:
        """Images in any split."""
        return sum(counts.total() for counts in self.class_counts.values())


def write_share(plan: SharePlan, batches: Iterable[pa.RecordBatch], task: int, attempt: int) -> Share:
    """Write one task's images and give what was counted.

    `batches` have the columns image_id, path, content, class_name, given_split, copy, code, message, size_bytes, the
    copies of an image right behind it. Files of a task that fails are removed again.
    """
    name = part_name(plan.run_id, task, attempt)
    with ExitStack() as stack:
        writers = {
            folder: stack.enter_context(
                PartWriter(
                    plan.folder,
                    f"{folder}/{name}",
                    imageset.REJECTS_SCHEMA if folder == imageset.REJECTS else imageset.SCHEMA,
                    plan.rows_per_row_group,
                )
            )
            for folder in (*SPLITS, imageset.REJECTS)
        }
        share = _ShareInProgress(plan, writers)
        for batch in batches:
            share.add(batch)
        return share.finish()


class _ShareInProgress:
    def __init__(self, plan: SharePlan, writers: dict[str, PartWriter]) -> None:
        self._plan = plan
        self._writers = writers
        self._label_of = {name: label for label, name in enumerate(plan.classes)}
        self._share = Share(
            class_counts={split: Counter() for split in SPLITS},
            channel_sums=[0] * plan.spec.channels,
            channel_square_sums=[0] * plan.spec.channels,
        )
        # (image_id, code, message) of the last image that was refused: its copies are refused with it.
        self._last_refused: tuple[str, str, str] | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        kept: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        rejects = []
        for row in batch.to_pylist():
            self._share.found += 1
            if row[COPY] > 1 and not self._is_refused(row):
                self._share.duplicate += 1
                continue
            try:
                split, image = self._take(row)
            except ImageError as error:
                self._last_refused = (row[imageset.IMAGE_ID], error.code, error.message)
                self._share.rejected[error.code] += 1
                rejects.append(
                    {
                        imageset.PATH: row[imageset.PATH],
                        imageset.CODE: error.code,
                        imageset.MESSAGE: error.message,
                        imageset.SIZE_BYTES: row[imageset.SIZE_BYTES],
                    }
                )
                continue
            kept[split].append(image)
        for split, rows in kept.items():
            self._write(split, rows)
        if rejects:
            self._writers[imageset.REJECTS].write(_batch(rejects, imageset.REJECTS_SCHEMA))

    def finish(self) -> Share:
        for folder, writer in self._writers.items():
            file = writer.close()
            if file is not None:
                self._share.files[folder] = [file]
        return self._share

    def _is_refused(self, row: dict[str, Any]) -> bool:
        return self._last_refused is not None and self._last_refused[0] == row[imageset.IMAGE_ID]

    def _take(self, row: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Give (split, row of the image set). Raises ImageError."""
        plan = self._plan
        image_id = row[imageset.IMAGE_ID]
        if row[imageset.CODE] is not None:
            raise ImageError(row[imageset.CODE], row[imageset.MESSAGE])
        if self._last_refused is not None and self._is_refused(row):
            raise ImageError(*self._last_refused[1:])
        if row[CLASS_NAME] not in self._label_of:
            raise ImageError("unknown_label", "the image lies in no class folder")
        pixels = pixels_of(row[CONTENT], plan.spec, plan.raw_shape)
        split = assign_split(
            image_id,
            given=row[GIVEN_SPLIT],
            val_fraction=plan.split.val_fraction,
            test_fraction=plan.split.test_fraction,
            salt=plan.split.salt,
        )
        return split, {
            imageset.IMAGE_ID: image_id,
            imageset.PATH: row[imageset.PATH],
            imageset.IMAGE: pixels.tobytes(),
            imageset.LABEL: self._label_of[row[CLASS_NAME]],
        }

    def _write(self, split: str, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        self._writers[split].write(_batch(rows, imageset.SCHEMA))
        share = self._share
        share.class_counts[split].update(row[imageset.LABEL] for row in rows)
        for row in rows:
            class_name = self._plan.classes[row[imageset.LABEL]]
            share.content_sum += row_digest(row[imageset.IMAGE_ID], row[imageset.IMAGE], class_name, split)
        share.content_sum %= _FINGERPRINT_MODULUS
        if split == TRAIN:
            # (rows * height * width, channels) uint8
            pixels = np.frombuffer(b"".join(row[imageset.IMAGE] for row in rows), np.uint8)
            pixels = pixels.reshape(-1, self._plan.spec.channels)
            # Of uint8 there are but 256 values, so a histogram gives both sums exactly and at once.
            for channel in range(self._plan.spec.channels):
                histogram = np.bincount(pixels[:, channel], minlength=256)
                values = np.arange(256)
                share.channel_sums[channel] += int(histogram @ values)
                share.channel_square_sums[channel] += int(histogram @ values**2)


def pixels_of(content: bytes, spec: ImageSpec, raw_shape: tuple[int, int, int] | None) -> np.ndarray:
    """Decode what a source gives, an encoded file or (`raw_shape` set) an array's bytes: the spec's shape, uint8.

    Raises ImageError as `decode_image` does.
    """
    if raw_shape is None:
        return decode_image(content, spec)
    return fit_array(np.frombuffer(content, np.uint8).reshape(raw_shape), spec)


def row_digest(image_id: str, pixels: bytes, class_name: str, split: str) -> int:
    """A 256-bit digest of one row: what the image is, how it is stored, its class and its split."""
    stored = hashlib.sha256(pixels).hexdigest()
    return int.from_bytes(hashlib.sha256("\0".join((image_id, stored, class_name, split)).encode()).digest(), "big")


def fingerprint(share: Share, spec: ImageSpec, classes: tuple[str, ...]) -> str:
    """The fingerprint of a whole set: SHA-256 over its rows' digests, its image spec and its classes."""
    text = "\0".join((f"{share.content_sum:064x}", str(share.kept), repr(spec), *classes))
    return hashlib.sha256(text.encode()).hexdigest()


def channel_statistics(share: Share, spec: ImageSpec) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per-channel mean and standard deviation of the train pixels, in 0 to 1; zeros and ones without any."""
    count = share.class_counts[TRAIN].total() * spec.height * spec.width
    if not count:
        return (0.0,) * spec.channels, (1.0,) * spec.channels
    means, deviations = [], []
    for total, squares in zip(share.channel_sums, share.channel_square_sums, strict=True):
        mean = total / count
        means.append(mean / 255)
        deviations.append(max(squares / count - mean * mean, 0.0) ** 0.5 / 255)
    return tuple(means), tuple(deviations)


def _batch(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, schema=schema)
