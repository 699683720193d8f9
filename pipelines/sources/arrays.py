"""Files that hold arrays of images: IDX (MNIST, EMNIST), the MNIST that comes with sparkcnn, binary CIFAR."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from cnnlib.config import SourceSettings
from cnnlib.errors import SourceError
from cnnlib.image_set.contract import PATH, SIZE_BYTES
from cnnlib.image_set.ledger import CLASS_NAME, FILE, GIVEN_SPLIT, IMAGES, VERSION
from cnnlib.image_set.splits import TEST
from cnnlib.image_set.writer import CONTENT
from cnnlib.mnist import MD5 as MNIST_FILES
from cnnlib.mnist import read_mnist_file
from cnnlib.sources import cifar, idx
from cnnlib.sources.gzipped import unzip
from cnnlib.storage.folder import Folder, open_folder
from pipelines.sources.files import opened_file, version_of
from pipelines.sources.source import (
    Entry,
    Images,
    Names,
    Source,
    files_table,
    image_batches,
    of_files,
    spread_over_tasks,
)


def open_mnist(spark: SparkSession, settings: SourceSettings) -> Source:
    """Open the MNIST that comes with the package."""
    pairs = idx.find_pairs(MNIST_FILES)
    labels = {images: idx.parse_idx(read_mnist_file(name), name) for images, name in pairs.values()}
    versions = {images: (0, MNIST_FILES[images]) for images in labels}
    unlabelled = settings.labels == "none"

    def parse(files: Iterator[Entry]) -> Iterator[pa.RecordBatch]:
        for row in files:
            yield from _pair_batches(row, read_mnist_file(row[FILE]), read_mnist_file(row["labels_name"]), unlabelled)

    return Source(
        _files(labels, versions),
        _classes(labels, unlabelled),
        _spread(spark, _pair_table(pairs), parse),
        gives_test=True,
        raw_shape=(28, 28, 1),
    )


def open_idx(spark: SparkSession, folder: Folder, settings: SourceSettings) -> Source:
    """Open a folder of IDX files. Raises SourceError where there are none, or they do not fit together."""
    infos = {info["name"].rsplit("/", 1)[-1]: info for info in folder.fs.ls(folder.root, detail=True)}
    pairs = idx.find_pairs(infos)
    labels = {images: idx.parse_idx(folder.fs.cat_file(folder.path(name)), name) for images, name in pairs.values()}
    versions = {
        images: (infos[images]["size"], f"{version_of(infos[images])}-{version_of(infos[name])}")
        for images, name in pairs.values()
    }
    shape = _image_shape(folder, pairs)
    unlabelled = settings.labels == "none"

    uri = folder.uri

    def parse(files: Iterator[Entry]) -> Iterator[pa.RecordBatch]:
        opened = open_folder(uri)
        for row in files:
            images, labels = (_content(opened, row[name]) for name in (FILE, "labels_name"))
            yield from _pair_batches(row, images, labels, unlabelled)

    return Source(
        _files(labels, versions),
        _classes(labels, unlabelled),
        _spread(spark, _pair_table(pairs), parse),
        gives_test=any(map(idx.is_test, pairs)),
        raw_shape=shape,
    )


def open_cifar(spark: SparkSession, folder: Folder, settings: SourceSettings) -> Source:
    """Open a folder of CIFAR's binary files. Raises SourceError where there are none."""
    infos = {info["name"].rsplit("/", 1)[-1]: info for info in folder.fs.ls(folder.root, detail=True)}
    found = cifar.find_files(infos)
    names_file = found.class_names
    content = folder.fs.cat_file(folder.path(names_file)) if names_file else None
    classes = cifar.parse_class_names(content, names_file or "", found.kind)
    unlabelled = settings.labels == "none"
    labels_version = hashlib.sha256(content or b"").hexdigest()[:16]
    files = files_table(
        {
            FILE: name,
            VERSION: f"{version_of(infos[name])}-{labels_version}",
            SIZE_BYTES: infos[name]["size"],
            IMAGES: _unzipped_bytes(folder, name, infos[name]["size"]) // cifar.record_bytes(found.kind),
        }
        for name in found.batches
    )

    uri = folder.uri

    def parse(files: Iterator[Entry]) -> Iterator[pa.RecordBatch]:
        opened = open_folder(uri)
        for row in files:
            pixels, labels = cifar.parse_batch(_content(opened, row[FILE]), row[FILE], found.kind)
            names = [None if unlabelled else classes[label] for label in labels]
            yield from _image_batches(row[FILE], pixels, names, cifar.is_test(row[FILE]))

    return Source(
        files,
        () if unlabelled else classes,
        _spread(spark, pa.table({FILE: found.batches}), parse),
        gives_test=any(map(cifar.is_test, found.batches)),
        raw_shape=(cifar.SIDE, cifar.SIDE, 3),
    )


def _spread(
    spark: SparkSession, table: pa.Table, parse: Callable[[Iterator[Entry]], Iterator[pa.RecordBatch]]
) -> Callable[[Names, int], Images]:
    """A task a file parses it; then its images, which are many and small, are spread over the tasks."""

    def images(names: Names, tasks: int) -> Images:
        files = of_files(table, names)
        return Images(spread_over_tasks(spark, files, files.num_rows, parse).frame().repartition(tasks))

    return images


def _content(folder: Folder, name: str) -> bytes:
    with opened_file(folder, name) as file:
        return file.read()


def _unzipped_bytes(folder: Folder, name: str, size: int) -> int:
    return len(unzip(folder.fs.cat_file(folder.path(name)), name)) if name.endswith(".gz") else size


def _pair_table(pairs: dict[str, tuple[str, str]]) -> pa.Table:
    images, labels = zip(*pairs.values(), strict=True)
    return pa.table({FILE: images, "labels_name": labels, "is_test": list(map(idx.is_test, pairs))})


def _files(labels: dict[str, np.ndarray], versions: dict[str, tuple[int, str]]) -> pa.Table:
    if not any(map(len, labels.values())):
        raise SourceError("the IDX files have no images; check the source")
    return files_table(
        {FILE: name, VERSION: versions[name][1], SIZE_BYTES: versions[name][0], IMAGES: len(labels[name])}
        for name in labels
    )


def _classes(labels: dict[str, np.ndarray], unlabelled: bool) -> tuple[str, ...]:
    values = np.unique(np.concatenate(list(labels.values())))
    return () if unlabelled else tuple(str(value) for value in values)


def _image_shape(folder: Folder, pairs: dict[str, tuple[str, str]]) -> tuple[int, int, int]:
    """(height, width, 1), from the header of each images file. Raises SourceError where they differ or are zero."""
    shapes = {}
    for images_name, _ in pairs.values():
        with folder.fs.open(folder.path(images_name), "rb") as file:
            shapes[images_name] = idx.image_size(file, images_name)
    if len(set(shapes.values())) > 1:
        raise SourceError(f"the images files of {folder.uri} differ in image size: {shapes}; ingest them one by one")
    height, width = next(iter(shapes.values()))
    if not height * width:
        raise SourceError("the IDX files have images without pixels; check the source")
    return height, width, 1


def _pair_batches(row: dict[str, Any], images: bytes, labels: bytes, unlabelled: bool) -> Iterator[pa.RecordBatch]:
    pixels, classes = idx.parse_pair(images, labels, row[FILE], row["labels_name"])
    names = [None if unlabelled else str(label) for label in classes]
    return _image_batches(row[FILE], pixels, names, row["is_test"])


def _image_batches(
    file: str, pixels: np.ndarray, class_names: Sequence[str | None], is_test: bool
) -> Iterator[pa.RecordBatch]:
    """(count, height, width[, channels]) uint8 -> batches of IMAGES_SCHEMA."""
    return image_batches(
        (
            {
                FILE: file,
                PATH: f"{file}#{number:05d}",
                CONTENT: image.tobytes(),
                CLASS_NAME: class_name,
                GIVEN_SPLIT: TEST if is_test else None,
                SIZE_BYTES: image.size,
            }
            for number, (image, class_name) in enumerate(zip(pixels, class_names, strict=True))
        )
    )
