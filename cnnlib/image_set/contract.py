"""The image set: ingest publishes it, training reads it through the feed, and scoring can read it.

It is a folder with Parquet files in `train/`, `val/`, `test/` and `rejects/`, which any Parquet reader can use, and the
file `dataset.json`. That file is written last and atomically. A folder without it is not an image set, and only the
files that it names belong to the set.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from cnnlib.errors import ImageSetError, ModelError
from cnnlib.image_set.splits import SPLITS
from cnnlib.sealed.frozen.images import ImageSpec, Limits, decode_image
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

# A message names this many classes.
_CLASSES_SHOWN = 5

SCHEMA = pa.schema([(IMAGE_ID, pa.string()), (PATH, pa.string()), (IMAGE, pa.binary()), (LABEL, pa.int32())])
REJECTS_SCHEMA = pa.schema([(PATH, pa.string()), (CODE, pa.string()), (MESSAGE, pa.string()), (SIZE_BYTES, pa.int64())])


@dataclass(frozen=True)
class Counts:
    """Numbers of images: found = kept + duplicate + rejected. Files that are left out are not among those found."""

    found: int
    kept: int
    duplicate: int
    rejected: int

    def check(self) -> None:
        """Raise ImageSetError unless every image found is kept, a duplicate or rejected."""
        if self.found != self.kept + self.duplicate + self.rejected:
            raise ImageSetError(
                f"the counts do not add up: found {self.found}, but kept {self.kept} + duplicate {self.duplicate} "
                f"+ rejected {self.rejected}; nothing was published. Ingest again while nothing changes the source"
            )


@dataclass(frozen=True)
class Split:
    """One of the splits train, val and test: its rows, its rows per class in label order, and its part files."""

    rows: int
    class_counts: tuple[int, ...]
    files: tuple[PartFile, ...]

    @property
    def row_groups(self) -> int:
        """Number of row groups in all files."""
        return sum(file.row_groups for file in self.files)


@dataclass(frozen=True)
class ImageSet:
    """A published image set, as `open_image_set` returns it.

    - `classes` are the class names in label order.
    - `mean` and `std` are those of the train split per channel, scaled to 0 to 1.
    - `settings` are those of the ingest that made the set.
    - `fingerprint` is a SHA-256 over the content: pixels, labels, splits, classes and image spec. So it is the same for
      the same content under other file names or at another time.
    - `left_out` counts the source's files that are no images, by the reason or by the ending of their names.
    - `conflicting` is the number of images whose pixels also occur in another class.
    - `rejects`, `ledger` and `source_files` are the part files beside those of the splits.
    - `source_digest` changes when any file of the source changes.
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
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def limits(self) -> Limits:
        """The limits for image files with which the set was made, but for their bytes. A model gets them too."""
        rejects = self.settings.get("rejects", {})
        known = {name: rejects[name] for name in ("max_pixels", "min_side", "keep_truncated") if name in rejects}
        return Limits(**known)

    @property
    def name(self) -> str:
        """Name of the set: the last component of the folder's path."""
        return self.folder.root.rsplit("/", 1)[-1]

    def files(self, split: str) -> list[str]:
        """List the URLs of the Parquet files of a split ("train", "val" or "test"), in their published order.

        Raises ImageSetError as `split` does.
        """
        return [self.folder.url(file.path) for file in self.split(split).files]

    def split(self, name: str) -> Split:
        """Return a split by its name. Raises ImageSetError for an unknown name, and for a split without images."""
        if name not in SPLITS:
            raise ImageSetError(f"split={name} is unknown; take one of {', '.join(SPLITS)}")
        if not self.splits[name].rows:
            raise ImageSetError(
                f"{self.folder.uri} has no {name} images; ingest with another split.val_fraction or split.test_fraction"
            )
        return self.splits[name]

    def check_fits(self, spec: ImageSpec) -> None:
        """Raise ModelError unless the set's images have the size, channels and resizing of a model's spec."""
        found, needed = ((*one.shape, one.resize) for one in (self.image, spec))
        if found != needed:
            raise ModelError(
                f"{self.folder.uri} has images of {found} (height, width, channels, resize), but the model takes "
                f"{needed}; use an image set with these, or score the source itself with input.format"
            )

    def check_classes(self, classes: Sequence[str]) -> None:
        """Raise ModelError if the set and a model have no class in common, so that every prediction would be wrong."""
        if not self.classes or set(self.classes) & set(classes):
            return
        others = {_reading(name): name for name in classes}
        near = [f"{own} and {others[_reading(own)]}" for own in self.classes if _reading(own) in others]
        hint = f" ({', '.join(near[:_CLASSES_SHOWN])} look alike)" if near else ""
        raise ModelError(
            f"{self.folder.uri} and the model have no class in common{hint}: the set has {_first_classes(self.classes)}"
            f"; the model has {_first_classes(classes)}; name a set with the model's classes, or ingest it again with "
            "their spelling"
        )


def _reading(name: str) -> str:
    """Return how people read a class name: without case, blanks, and zeros that do not count.

    >>> _reading(" Cat"), _reading("7.0"), _reading("007")
    ('cat', '7', '7')
    """
    text = " ".join(name.split()).casefold()
    return str(Decimal(text).normalize()) if re.fullmatch(r"-?\d+(\.\d+)?", text) else text


def _first_classes(classes: Sequence[str]) -> str:
    more = len(classes) - _CLASSES_SHOWN
    return ", ".join(classes[:_CLASSES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def stored_pixels(stored: bytes, spec: ImageSpec) -> np.ndarray:
    """Return the pixels of one stored image of a set with this spec: (height, width, channels) uint8."""
    if spec.encoding == "raw":
        return np.frombuffer(stored, np.uint8).reshape(spec.shape)
    return decode_image(stored, spec)


def raw_pixels(stored: pa.Array, shape: tuple[int, int, int]) -> np.ndarray:
    """Return the pixels of a binary array of raw images: (rows, height, width, channels) uint8.

    The result is a view of Arrow's memory. Raises ValueError if a row is null or has another size than `shape`.
    """
    offsets_buffer, pixels_buffer = stored.buffers()[1:]
    if not len(stored):
        return np.empty((0, *shape), np.uint8)
    offsets = np.frombuffer(offsets_buffer, np.int32)[stored.offset : stored.offset + len(stored) + 1]
    if stored.null_count or (np.diff(offsets) != np.prod(shape)).any():
        raise ValueError(f"some of {len(stored)} images are not {np.prod(shape)} bytes long")
    return np.frombuffer(pixels_buffer, np.uint8)[offsets[0] : offsets[-1]].reshape(-1, *shape)


def open_image_set(path: str) -> ImageSet:
    """Open an image set at a path or URI. It reads `dataset.json` only.

    Raises ImageSetError if the folder has no `dataset.json`, or one in a format that this version cannot read.

    Example: look at a set, and read its train split with pandas.

    >>> photos = open_image_set("sets/photos")
    >>> photos.classes, photos.image.shape, photos.split("train").rows
    (('cat', 'dog'), (28, 28, 1), 8)
    >>> import pandas as pd
    >>> pd.concat(map(pd.read_parquet, photos.files("train"))).columns.tolist()
    ['image_id', 'path', 'image', 'label']
    """
    folder = open_folder(path)
    try:
        return _read(folder)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ImageSetError(f"{folder.uri}/{COMMIT} is damaged ({error!r}); ingest the set again") from error


def _read(folder: Folder) -> ImageSet:
    content = folder.read_json(COMMIT)
    if content is None:
        raise ImageSetError(
            f"{folder.uri} is not an image set: it has no {COMMIT}; check the path, or make a set with sparkcnn ingest"
        )
    if content.get("format_version") != FORMAT_VERSION:
        raise ImageSetError(
            f"{folder.uri} has format_version {content.get('format_version')}, but this sparkcnn reads "
            f"{FORMAT_VERSION}; ingest the set again"
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
        # Sets of earlier versions do not have these keys.
        rejected_by_code=content.get("rejected_by_code", {}),
        conflicting=content.get("conflicting", 0),
        rejects=_part_files(content.get("rejects", [])),
        ledger=_part_files(content.get("ledger", [])),
        source_files=_part_files(content.get("source_files", [])),
        source_digest=content.get("source_digest", ""),
        left_out=content.get("left_out", {}),
    )


def _part_files(files: list[dict[str, Any]]) -> tuple[PartFile, ...]:
    return tuple(PartFile(**file) for file in files)


def publish_image_set(image_set: ImageSet) -> None:
    """Commit an image set: write `dataset.json`, then remove the files of the set that it replaces.

    Raises ImageSetError, and publishes nothing, if the counts do not add up. Raises OutputExistsError, and publishes
    nothing, if a file of the set is missing.
    """
    image_set.counts.check()
    rows = sum(split.rows for split in image_set.splits.values())
    if rows != image_set.counts.kept:
        raise ImageSetError(
            f"the counts do not add up: kept {image_set.counts.kept}, but the splits have {rows} rows; nothing was "
            "published. This is a fault of sparkcnn: please report it"
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
        "left_out": image_set.left_out,
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
