"""The image set: what ingest publishes, training feeds on and scoring reads.

A folder `train/ val/ test/ rejects/` of Parquet files that any reader understands, and `dataset.json`, written
last and atomically: a folder without it is no image set, and only the files that it names belong to the set.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from cnnlib.errors import ImageSetError, ModelError
from cnnlib.image_set.splits import SPLITS
from cnnlib.sealed.frozen.images import ImageSpec, decode_image
from cnnlib.storage.folder import Folder, commit, open_folder
from cnnlib.storage.parts import PartFile

COMMIT = "dataset.json"
FORMAT_VERSION = 1
REJECTS = "rejects"

IMAGE_ID = "image_id"
PATH = "path"
IMAGE = "image"
LABEL = "label"
CODE = "code"
MESSAGE = "message"
SIZE_BYTES = "size_bytes"

SCHEMA = pa.schema([(IMAGE_ID, pa.string()), (PATH, pa.string()), (IMAGE, pa.binary()), (LABEL, pa.int32())])
REJECTS_SCHEMA = pa.schema([(PATH, pa.string()), (CODE, pa.string()), (MESSAGE, pa.string()), (SIZE_BYTES, pa.int64())])


@dataclass(frozen=True)
class Counts:
    """What became of every image that ingest found: found = kept + duplicate + rejected."""

    found: int
    kept: int
    duplicate: int
    rejected: int

    def check(self) -> None:
        """Raise ImageSetError unless every image found is accounted for."""
        if self.found != self.kept + self.duplicate + self.rejected:
            raise ImageSetError(
                f"the counts do not add up: found {self.found}, but kept {self.kept} + duplicate {self.duplicate} "
                f"+ rejected {self.rejected}; nothing was published: was the source changed meanwhile?"
            )


@dataclass(frozen=True)
class Split:
    """One of train, val and test: rows, rows a class in label order, and the files that hold them."""

    rows: int
    class_counts: tuple[int, ...]
    files: tuple[PartFile, ...]

    @property
    def row_groups(self) -> int:
        """Row groups over all files."""
        return sum(file.row_groups for file in self.files)


@dataclass(frozen=True)
class ImageSet:
    """A published image set.

    `classes` are the class names in label order; `mean` and `std` are per channel of the train split, in 0 to 1;
    `settings` are those of the ingest that made it; `fingerprint` is a SHA-256 over the content (pixels, labels,
    splits, classes, image spec), and so the same for the same content under other names or at another time.
    `conflicting` images have the pixels of one of another class; `rejects`, `ledger` and `source_files` are files
    beside those of the splits; `source_digest` changes with any file of the source.
    """

    folder: Folder
    classes: tuple[str, ...]
    image: ImageSpec
    counts: Counts
    splits: dict[str, Split]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    settings: dict[str, Any]
    fingerprint: str
    rejected_by_code: dict[str, int] = field(default_factory=dict)
    conflicting: int = 0
    rejects: tuple[PartFile, ...] = ()
    ledger: tuple[PartFile, ...] = ()
    source_files: tuple[PartFile, ...] = ()
    source_digest: str = ""

    @property
    def name(self) -> str:
        """The last part of the folder's path."""
        return self.folder.root.rsplit("/", 1)[-1]

    def files(self, split: str) -> list[str]:
        """URLs of the Parquet files of a split ("train", "val" or "test"), in their published order."""
        return [self.folder.url(file.path) for file in self.split(split).files]

    def split(self, name: str) -> Split:
        """One split. Raises ImageSetError for another name, or for a split without images."""
        if name not in SPLITS:
            raise ImageSetError(f"split={name} is unknown; take one of {', '.join(SPLITS)}")
        if not self.splits[name].rows:
            raise ImageSetError(f"{self.folder.uri} has no {name} images; set the split fractions at ingest")
        return self.splits[name]

    def check_fits(self, spec: ImageSpec) -> None:
        """Raise ModelError if the images of the set were not made as a model of this spec needs them."""
        there, needed = ((*one.shape, one.resize) for one in (self.image, spec))
        if there != needed:
            raise ModelError(
                f"{self.folder.uri} has images of {there} (height, width, channels, resize), the model takes {needed}; "
                "take an image set made so, or score the source itself with input.format"
            )


def stored_pixels(stored: bytes, spec: ImageSpec) -> np.ndarray:
    """The pixels of an image as a set of this spec stores it: (height, width, channels) uint8."""
    if spec.encoding == "raw":
        return np.frombuffer(stored, np.uint8).reshape(spec.shape)
    return decode_image(stored, spec)


def raw_pixels(stored: pa.Array, shape: tuple[int, int, int]) -> np.ndarray:
    """Pixels stored raw, a binary array of them: (rows, height, width, channels) uint8, a view of Arrow's memory.

    Raises ValueError where a row is null or has another size.
    """
    offsets_buffer, pixels_buffer = stored.buffers()[1:]
    if not len(stored):
        return np.empty((0, *shape), np.uint8)
    offsets = np.frombuffer(offsets_buffer, np.int32)[stored.offset : stored.offset + len(stored) + 1]
    if stored.null_count or (np.diff(offsets) != np.prod(shape)).any():
        raise ValueError(f"some of {len(stored)} images are not {np.prod(shape)} bytes long")
    return np.frombuffer(pixels_buffer, np.uint8)[offsets[0] : offsets[-1]].reshape(-1, *shape)


def open_image_set(path: str) -> ImageSet:
    """Open an image set at a path or URI. Reads `dataset.json` and nothing else.

    Raises ImageSetError when the folder has none, or one of a format that this version does not read.
    """
    folder = open_folder(path)
    try:
        return _read(folder)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ImageSetError(f"{folder.uri}/{COMMIT} is damaged ({error!r}); ingest it anew") from error


def _read(folder: Folder) -> ImageSet:
    content = folder.read_json(COMMIT)
    if content is None:
        raise ImageSetError(
            f"{folder.uri} is not an image set: it has no {COMMIT}; check the path, or make one with sparkcnn ingest"
        )
    if content.get("format_version") != FORMAT_VERSION:
        raise ImageSetError(
            f"{folder.uri} has format_version {content.get('format_version')}, this sparkcnn reads "
            f"{FORMAT_VERSION}; ingest it anew"
        )
    return ImageSet(
        folder=folder,
        classes=tuple(content["classes"]),
        image=ImageSpec(**content["image"]),
        counts=Counts(**content["counts"]),
        splits={
            name: Split(
                split["rows"],
                tuple(split["class_counts"]),
                _part_files(split["files"]),
            )
            for name, split in content["splits"].items()
        },
        mean=tuple(content["statistics"]["mean"]),
        std=tuple(content["statistics"]["std"]),
        settings=content["settings"],
        fingerprint=content["fingerprint"],
        # Sets of earlier versions have none of these.
        rejected_by_code=content.get("rejected_by_code", {}),
        conflicting=content.get("conflicting", 0),
        rejects=_part_files(content.get("rejects", [])),
        ledger=_part_files(content.get("ledger", [])),
        source_files=_part_files(content.get("source_files", [])),
        source_digest=content.get("source_digest", ""),
    )


def _part_files(files: list[dict[str, Any]]) -> tuple[PartFile, ...]:
    return tuple(PartFile(**file) for file in files)


def publish_image_set(image_set: ImageSet) -> None:
    """Commit: write `dataset.json`, then remove the files of the set that stood there before.

    Raises ImageSetError, and publishes nothing, when the counts do not add up.
    """
    image_set.counts.check()
    rows = sum(split.rows for split in image_set.splits.values())
    if rows != image_set.counts.kept:
        raise ImageSetError(
            f"the counts do not add up: kept {image_set.counts.kept}, but the splits have {rows} rows; nothing was "
            "published, and this is a fault of sparkcnn: report it"
        )
    content = {
        "format_version": FORMAT_VERSION,
        "classes": list(image_set.classes),
        "image": image_set.image.as_dict(),
        "counts": vars(image_set.counts),
        "splits": {
            name: {
                "rows": split.rows,
                "class_counts": list(split.class_counts),
                "files": [file.as_dict() for file in split.files],
            }
            for name, split in image_set.splits.items()
        },
        "rejected_by_code": image_set.rejected_by_code,
        "conflicting": image_set.conflicting,
        "rejects": [file.as_dict() for file in image_set.rejects],
        "ledger": [file.as_dict() for file in image_set.ledger],
        "source_files": [file.as_dict() for file in image_set.source_files],
        "statistics": {"mean": list(image_set.mean), "std": list(image_set.std)},
        "settings": image_set.settings,
        "source_digest": image_set.source_digest,
        "fingerprint": image_set.fingerprint,
    }
    files = [file for split in image_set.splits.values() for file in split.files]
    keep = {file.path for file in (*files, *image_set.rejects, *image_set.ledger, *image_set.source_files)}
    commit(image_set.folder, COMMIT, content, keep=keep)
