"""Write the images of one task: decode them, write the pixels into the split that their hash gives, fill the ledger.

Plain Python without Spark: `pipelines.ingest.flow` runs `write_images` once per Spark task.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from cnnlib.config import SplitSettings
from cnnlib.errors import ImageError
from cnnlib.image_set import contract, ledger
from cnnlib.image_set.splits import SPLITS, assign_split, split_key
from cnnlib.image_set.thumbnails import thumbnail_png
from cnnlib.sealed.frozen.images import DecodedImage, ImageSpec, Limits, encode_image, fit_array, read_image
from cnnlib.storage.folder import Folder, part_name
from cnnlib.storage.parts import FilesByFolder, PartWriter, merge_files

# The bytes of an image; the other columns of a source are columns of the ledger.
CONTENT = "content"
SOURCE_COLUMNS = (
    ledger.FILE,
    contract.PATH,
    CONTENT,
    ledger.CLASS_NAME,
    ledger.GROUP,
    ledger.GIVEN_SPLIT,
    contract.CODE,
    contract.MESSAGE,
    contract.SIZE_BYTES,
)

# Of the rejects of one code, each task keeps this many thumbnails for the report.
THUMBNAILS = 3
# A row of the ledger has a few hundred bytes.
LEDGER_ROWS_PER_ROW_GROUP = 20_000


@dataclass(frozen=True)
class WritePlan:
    """Everything that is the same for all tasks of one ingest.

    `raw_shape` is set if the source has arrays instead of image files. If `labelled` is false, images need no class.
    `class_of` has the class of each name that is spelled otherwise, see `cnnlib.sources.spelling`.
    """

    folder: Folder
    run_id: str
    spec: ImageSpec
    classes: tuple[str, ...]
    raw_shape: tuple[int, int, int] | None
    split: SplitSettings
    rows_per_row_group: int
    rows_per_file: int = 8192
    limits: Limits = Limits()
    quality: int = 90
    labelled: bool = True
    class_of: Mapping[str, str] = field(default_factory=dict)


@dataclass
class WrittenImages:
    """What one task has written: images found, rejects by code, and files by folder. `+` adds several tasks up."""

    found: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    files: FilesByFolder = field(default_factory=dict)

    def __add__(self, other: "WrittenImages") -> "WrittenImages":
        return WrittenImages(
            self.found + other.found,
            self.rejected + other.rejected,
            merge_files(self.files, other.files),
        )


def write_images(
    plan: WritePlan,
    batches: Iterable[pa.RecordBatch],
    task: int,
    attempt: int,
) -> WrittenImages:
    """Write the images of one task and one ledger row for each; return what was written.

    `batches` have SOURCE_COLUMNS. If the task fails, its files are removed.
    """
    name = part_name(plan.run_id, task, attempt)
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(
                PartWriter(plan.folder, f"{split}/{name}", contract.SCHEMA, plan.rows_per_row_group)
            )
            for split in SPLITS
        }
        ledger_writer = stack.enter_context(
            PartWriter(plan.folder, f"{ledger.LEDGER}/{name}", ledger.SCHEMA, LEDGER_ROWS_PER_ROW_GROUP)
        )
        task_writer = _TaskWriter(plan, writers, ledger_writer)
        for batch in batches:
            task_writer.add(batch)
        return task_writer.finish()


class _TaskWriter:
    def __init__(self, plan: WritePlan, writers: dict[str, PartWriter], ledger_writer: PartWriter) -> None:
        self._plan = plan
        self._writers = writers
        self._ledger_writer = ledger_writer
        self._label_of = {name: label for label, name in enumerate(plan.classes)}
        self._written = WrittenImages()

    def add(self, batch: pa.RecordBatch) -> None:
        stored: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        ledger_rows = []
        contents = batch.column(CONTENT)
        for index, row in enumerate(batch.select([name for name in SOURCE_COLUMNS if name != CONTENT]).to_pylist()):
            content = contents[index].as_py() or b""
            self._written.found += 1
            row[ledger.SPELLED] = row[ledger.CLASS_NAME]
            row[ledger.CLASS_NAME] = self._plan.class_of.get(row[ledger.SPELLED], row[ledger.SPELLED])
            try:
                split, image, columns = self._process(row, content)
            except ImageError as error:
                ledger_rows.append(row | self._reject(error, content))
                continue
            columns[ledger.PART] = self._writers[split].path
            columns[ledger.ROW] = self._writers[split].rows + len(stored[split])
            stored[split].append(image)
            ledger_rows.append(row | columns)
        for split, rows in stored.items():
            if rows:
                self._writers[split].write(pa.RecordBatch.from_pylist(rows, schema=contract.SCHEMA))
        self._ledger_writer.write(pa.RecordBatch.from_pylist(ledger_rows, schema=ledger.SCHEMA))

    def finish(self) -> WrittenImages:
        for folder, writer in (*self._writers.items(), (ledger.LEDGER, self._ledger_writer)):
            file = writer.close()
            if file is not None:
                self._written.files[folder] = [file]
        return self._written

    def _process(self, row: dict[str, Any], content: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
        """Return (split, row of the image set, more columns of the ledger). Raises ImageError for a reject."""
        plan = self._plan
        if row[contract.CODE] is not None:
            raise ImageError(row[contract.CODE], row[contract.MESSAGE])
        label = -1 if not plan.labelled else self._label_of.get(row[ledger.CLASS_NAME])
        if label is None:
            raise ImageError("unknown_label", "the image has no label")
        decoded = self._decode(content)
        pixels = decoded.pixels
        image_id = hashlib.sha256(content).hexdigest()
        pixel_id = hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()
        split = assign_split(
            split_key(pixel_id, row[ledger.GROUP]),
            given=row[ledger.GIVEN_SPLIT],
            val_fraction=plan.split.val_fraction,
            test_fraction=plan.split.test_fraction,
            salt=plan.split.salt,
        )
        sums, square_sums = channel_sums(pixels)
        stored = {
            contract.IMAGE_ID: image_id,
            contract.PATH: row[contract.PATH],
            contract.IMAGE: encode_image(pixels, plan.spec.encoding, plan.quality),
            contract.LABEL: label,
        }
        columns = {
            contract.IMAGE_ID: image_id,
            ledger.PIXEL_ID: pixel_id,
            ledger.HEIGHT: decoded.source_height,
            ledger.WIDTH: decoded.source_width,
            ledger.CHANNEL_SUMS: sums,
            ledger.CHANNEL_SQUARE_SUMS: square_sums,
            contract.LABEL: label,
            ledger.TRUNCATED: decoded.truncated,
        }
        if plan.split.near_duplicates is not None:
            columns[ledger.PERCEPTUAL_HASH] = perceptual_hash(pixels)
        return split, stored, columns

    def _decode(self, content: Any) -> DecodedImage:
        plan = self._plan
        if plan.raw_shape is None:
            return read_image(content, plan.spec, plan.limits)
        height, width, _ = plan.raw_shape
        return DecodedImage(
            fit_array(np.frombuffer(content, np.uint8).reshape(plan.raw_shape), plan.spec), height, width
        )

    def _reject(self, error: ImageError, content: Any) -> dict[str, Any]:
        """Count a reject, and return its columns of the ledger."""
        self._written.rejected[error.code] += 1
        shown = self._written.rejected[error.code] <= THUMBNAILS and self._plan.raw_shape is None and len(content)
        return {
            contract.CODE: error.code,
            contract.MESSAGE: error.message,
            ledger.THUMBNAIL: thumbnail_png(content, max_pixels=self._plan.limits.max_pixels) if shown else None,
        }


def channel_sums(pixels: np.ndarray) -> tuple[list[int], list[int]]:
    """Return the exact sums of the values of (height, width, channels) uint8, and of their squares, per channel.

    >>> channel_sums(np.array([[[2, 3], [4, 5]]], np.uint8))
    ([6, 8], [20, 34])
    """
    # (channels, height * width) float64, which holds these integers exactly: 2**53 is 255**2 * 1.4e11 pixels
    planes = pixels.reshape(-1, pixels.shape[2]).T.astype(np.float64, order="C")
    return [int(total) for total in planes.sum(axis=1)], [int(plane @ plane) for plane in planes]


def perceptual_hash(pixels: np.ndarray) -> int:
    """Return 64 bits (as a signed integer) of the lowest frequencies; near duplicates differ in few of them.

    It is pHash of the library imagehash: C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash
    Functions", 2010, section 3.2.
    """
    import imagehash  # Imports SciPy, which an ingest without near duplicates does not need.

    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    bits = np.packbits(imagehash.phash(image).hash.ravel())
    return int(bits.view(">i8")[0])
