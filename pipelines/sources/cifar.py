"""A folder of CIFAR's binary files."""

import hashlib
from collections.abc import Iterator

import pyarrow as pa
from pyspark.sql import SparkSession

from cnnlib.config import CifarSource
from cnnlib.image_set.contract import SIZE_BYTES
from cnnlib.image_set.ledger import FILE, IMAGES, VERSION
from cnnlib.sources import cifar
from cnnlib.sources.gzipped import unzip
from pipelines.sources.arrays import array_batches, images_of_arrays
from pipelines.sources.files import infos_by_name, open_source_folder, read_whole_file, version_of
from pipelines.sources.source import Entry, Source, files_table


def open_cifar(spark: SparkSession, settings: CifarSource, max_bytes: int) -> Source:
    """Open a folder of CIFAR's binary files. `max_bytes` is not used, because these are not image files.

    Raises SourceError if there are none.
    """
    folder = open_source_folder(settings.path)
    uri, infos = folder.uri, infos_by_name(folder)
    found = cifar.find_files(infos)
    names_file = found.class_names
    names_content = read_whole_file(uri, names_file) if names_file else None
    classes = cifar.parse_class_names(names_content, names_file or "", found.kind)
    names_version = hashlib.sha256(names_content or b"").hexdigest()[:16]
    labelled = settings.labels == "given"

    def count_images(name: str) -> int:
        # Only a gzipped file must be read to know its size.
        size = len(unzip(read_whole_file(uri, name), name)) if name.endswith(".gz") else infos[name]["size"]
        return size // cifar.record_bytes(found.kind)

    def parse(row: Entry) -> Iterator[pa.RecordBatch]:
        name = row[FILE]
        pixels, labels = cifar.parse_batch(read_whole_file(uri, name), name, found.kind)
        class_names = [classes[label] if labelled else None for label in labels]
        return array_batches(name, pixels, class_names, cifar.is_test(name))

    return Source(
        files_table(
            {
                FILE: name,
                VERSION: f"{version_of(infos[name])}-{names_version}",
                SIZE_BYTES: infos[name]["size"],
                IMAGES: count_images(name),
            }
            for name in found.batches
        ),
        classes if labelled else (),
        images_of_arrays(spark, pa.table({FILE: found.batches}), parse),
        gives_test=any(map(cifar.is_test, found.batches)),
        raw_shape=(cifar.SIDE, cifar.SIDE, 3),
    )
