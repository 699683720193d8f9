"""Everything that ingest and score can read, apart from image sets: one opener per format.

A new format goes in four places:
1. `cnnlib/config/sources.py`: a class of its settings, whose docstring is the help, and its name in `AnySource`.
2. `cnnlib/sources/NAME.py`: list and parse its files, without Spark.
3. `pipelines/sources/NAME.py`: its opener, which returns a `Source`.
4. `SOURCES` below: its name and its opener.
"""

from collections.abc import Callable
from typing import Any

from pyspark.sql import SparkSession

from cnnlib.config import SourceSettings
from pipelines.sources.cifar import open_cifar
from pipelines.sources.idx import open_idx, open_mnist
from pipelines.sources.image_folder import open_image_folder
from pipelines.sources.manifest import open_manifest
from pipelines.sources.source import Source
from pipelines.sources.table import open_table
from pipelines.sources.webdataset import open_webdataset

# (session, settings of the format, most bytes of an image file) -> the source, with its files listed.
Opener = Callable[[SparkSession, Any, int], Source]

SOURCES: dict[str, Opener] = {
    "mnist": open_mnist,
    "idx": open_idx,
    "cifar": open_cifar,
    "image_folder": open_image_folder,
    "manifest": open_manifest,
    "table": open_table,
    "webdataset": open_webdataset,
}

# A row of Spark can hold more, but a task holds several copies of it.
MAX_IMAGE_BYTES = 256_000_000


def open_source(spark: SparkSession, settings: SourceSettings, max_bytes: int = MAX_IMAGE_BYTES) -> Source:
    """Open a source: list its files, but read no image. Image files of more than `max_bytes` are never read.

    Raises SourceError if nothing at the path has the format.
    """
    return SOURCES[settings.format](spark, settings.for_format(), max_bytes)


# Imports neither TensorFlow nor MLflow: tests/unit/test_import_rules.py reads this.
LIGHT_BUT_FOR = ()
