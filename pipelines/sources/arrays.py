"""Files that hold arrays of images: IDX (MNIST, EMNIST), the MNIST that comes with sparkcnn, binary CIFAR."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from cnnlib.config import SourceSettings
from cnnlib.errors import SourceError
from cnnlib.imageset import PATH, SIZE_BYTES
from cnnlib.imageset_writer import CONTENT
from cnnlib.ledger import CLASS_NAME, FILE, GIVEN_SPLIT, IMAGES, VERSION
from cnnlib.mnist import MD5 as MNIST_FILES
from cnnlib.mnist import read_mnist_file
from cnnlib.sources import cifar, idx
from cnnlib.sources.gzipped import unzip
from cnnlib.splits import TEST
from cnnlib.storage import Folder
from pipelines.session import ROWS_PER_ARROW_BATCH
from pipelines.sources.binary_files import read_folder, version_of
from pipelines.sources.source import IMAGES_SCHEMA, Names, Source, files_table, image_batches, only, rows

_PAIR_SCHEMA = f"{FILE} string, labels_name string, is_test boolean"


def open_mnist(spark: SparkSession, settings: SourceSettings) -> Source:
    """Open the MNIST that comes with the package."""
    pairs = idx.find_pairs(MNIST_FILES)
    labels = {images: idx.parse_idx(read_mnist_file(name), name) for images, name in pairs.values()}
    versions = {images: (0, MNIST_FILES[images]) for images in labels}
    frame = _pair_frame(spark, pairs)
    unlabelled = settings.labels == "none"

    # Rows of names alone: the files come with the package on every executor, so no bytes are sent.
    def parse(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for row in rows(batches):
            yield from _pair_batches(row, read_mnist_file(row[FILE]), read_mnist_file(row["labels_name"]), unlabelled)

    return Source(
        _files(labels, versions),
        _classes(labels, unlabelled),
        lambda names: only(frame, names).repartition(len(pairs)).mapInArrow(parse, IMAGES_SCHEMA),
        gives_test=True,
        raw_shape=(28, 28, 1),
        spread=True,
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

    def parse(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for row in rows(batches):
            yield from _pair_batches(row, row["images"], row["labels"], unlabelled)

    def images(names: Names) -> DataFrame:
        chosen = {stem: pair for stem, pair in pairs.items() if names is None or pair[0] in names}
        contents = [
            read_folder(spark, folder, [pair[side] for pair in chosen.values()]).select(
                F.col(FILE).alias(name), F.col(CONTENT).alias(what)
            )
            for side, name, what in ((0, FILE, "images"), (1, "labels_name", "labels"))
        ]
        joined = _pair_frame(spark, chosen).join(contents[0], FILE).join(contents[1], "labels_name")
        return joined.mapInArrow(parse, IMAGES_SCHEMA)

    return Source(
        _files(labels, versions),
        _classes(labels, unlabelled),
        images,
        gives_test=any(map(idx.is_test, pairs)),
        raw_shape=shape,
        spread=True,
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

    def parse(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for row in rows(batches):
            pixels, labels = cifar.parse_batch(row[CONTENT], row[FILE], found.kind)
            names = [None if unlabelled else classes[label] for label in labels]
            yield from _image_batches(row[FILE], pixels, names, cifar.is_test(row[FILE]))

    return Source(
        files,
        () if unlabelled else classes,
        lambda names: read_folder(spark, folder, list(found.batches) if names is None else names).mapInArrow(
            parse, IMAGES_SCHEMA
        ),
        gives_test=any(map(cifar.is_test, found.batches)),
        raw_shape=(cifar.SIDE, cifar.SIDE, 3),
        spread=True,
    )


def _unzipped_bytes(folder: Folder, name: str, size: int) -> int:
    return len(unzip(folder.fs.cat_file(folder.path(name)), name)) if name.endswith(".gz") else size


def _pair_frame(spark: SparkSession, pairs: dict[str, tuple[str, str]]) -> DataFrame:
    return spark.createDataFrame([(*pair, idx.is_test(stem)) for stem, pair in pairs.items()], _PAIR_SCHEMA)


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
        ),
        ROWS_PER_ARROW_BATCH,
        2**24,
    )
