"""IDX files: a folder of them, or the MNIST that comes with sparkcnn."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from cnnlib.config import IdxSource, MnistSource
from cnnlib.errors import SourceError
from cnnlib.image_set.contract import SIZE_BYTES
from cnnlib.image_set.ledger import FILE, IMAGES, VERSION
from cnnlib.mnist import MD5, read_mnist_file
from cnnlib.sources import idx
from cnnlib.storage.folder import Folder
from pipelines.sources.arrays import array_batches, images_of_arrays
from pipelines.sources.files import infos_by_name, open_source_folder, read_whole_file, version_of
from pipelines.sources.source import Entry, Source, files_table

_LABELS_FILE = "labels_file"
_IS_TEST = "is_test"


def open_mnist(spark: SparkSession, settings: MnistSource, max_bytes: int) -> Source:
    """Open the MNIST that comes with sparkcnn. `max_bytes` is not used."""
    pairs = idx.find_pairs(MD5)
    versions = {images: (0, MD5[images]) for images, _ in pairs.values()}
    return _open_pairs(spark, pairs, versions, (28, 28, 1), settings.labels == "given", read_mnist_file)


def open_idx(spark: SparkSession, settings: IdxSource, max_bytes: int) -> Source:
    """Open a folder of IDX files. `max_bytes` is not used, because these are not image files.

    Raises SourceError if there are none, or if they do not fit together.
    """
    folder = open_source_folder(settings.path)
    infos = infos_by_name(folder)
    pairs = idx.find_pairs(infos)
    versions = {
        images: (infos[images]["size"], f"{version_of(infos[images])}-{version_of(infos[labels])}")
        for images, labels in pairs.values()
    }
    labelled, read = settings.labels == "given", partial(read_whole_file, folder.uri)
    return _open_pairs(spark, pairs, versions, _image_shape(folder, pairs), labelled, read)


def _open_pairs(
    spark: SparkSession,
    pairs: dict[str, tuple[str, str]],
    versions: dict[str, tuple[int, str]],
    shape: tuple[int, int, int],
    labelled: bool,
    read: Callable[[str], bytes],
) -> Source:
    """Open pairs of an images file and a labels file; `pairs` has them by stem.

    `versions` has (bytes, version) by images file. `read` reads a file by its name, in the driver and in tasks.
    """
    labels = {images: idx.parse_idx(read(name), name) for images, name in pairs.values()}
    classes = np.unique(np.concatenate(list(labels.values())))
    if not any(map(len, labels.values())):
        raise SourceError("the IDX files have no images; check source.path")
    images_files, labels_files = zip(*pairs.values(), strict=True)
    table = pa.table({FILE: images_files, _LABELS_FILE: labels_files, _IS_TEST: list(map(idx.is_test, pairs))})

    def parse(row: Entry) -> Iterator[pa.RecordBatch]:
        images_file, labels_file = row[FILE], row[_LABELS_FILE]
        pixels, numbers = idx.parse_pair(read(images_file), read(labels_file), images_file, labels_file)
        class_names = [str(number) if labelled else None for number in numbers]
        return array_batches(images_file, pixels, class_names, row[_IS_TEST])

    return Source(
        files_table(
            {FILE: name, VERSION: versions[name][1], SIZE_BYTES: versions[name][0], IMAGES: len(labels[name])}
            for name in labels
        ),
        tuple(map(str, classes)) if labelled else (),
        images_of_arrays(spark, table, parse),
        gives_test=any(map(idx.is_test, pairs)),
        raw_shape=shape,
    )


def _image_shape(folder: Folder, pairs: dict[str, tuple[str, str]]) -> tuple[int, int, int]:
    """Read (height, width, 1) from the headers of the images files. Raises SourceError if they differ or are zero."""
    shapes = {}
    for images_name, _ in pairs.values():
        with folder.fs.open(folder.path(images_name), "rb") as file:
            shapes[images_name] = idx.image_size(file, images_name)
    if len(set(shapes.values())) > 1:
        raise SourceError(
            f"source.path={folder.uri} has images files of different image sizes: {shapes}; ingest them one by one"
        )
    height, width = next(iter(shapes.values()))
    if not height * width:
        raise SourceError(f"source.path={folder.uri} has images without pixels ({height} x {width}); check the files")
    return height, width, 1
