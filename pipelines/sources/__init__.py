"""What ingest and score can read: each format gives a `Source`."""

from pyspark.sql import SparkSession

from cnnlib.config import SourceSettings
from cnnlib.errors import ConfigError, SourceError
from cnnlib.storage.folder import open_folder
from pipelines.sources.arrays import open_cifar, open_idx, open_mnist
from pipelines.sources.image_folder import open_image_folder
from pipelines.sources.manifest import open_manifest
from pipelines.sources.source import Source
from pipelines.sources.table import open_table
from pipelines.sources.webdataset import open_webdataset

_OF_FOLDERS = {
    "image_folder": open_image_folder,
    "webdataset": open_webdataset,
}
_OF_ARRAYS = {
    "idx": open_idx,
    "cifar": open_cifar,
}


# A row of Spark's can hold some more, but a task holds several copies of it.
MAX_IMAGE_BYTES = 256_000_000


def open_source(spark: SparkSession, settings: SourceSettings, max_bytes: int = MAX_IMAGE_BYTES) -> Source:
    """Open a source: its files are listed, no image is read, and none of more than `max_bytes` ever will be.

    Raises ConfigError for a missing path, SourceError where nothing at the path is of the format.
    """
    if settings.format == "mnist":
        return open_mnist(spark, settings)
    if settings.path is None:
        raise ConfigError(f"source.path is missing; {settings.format} needs what is to be read")
    if settings.format == "table":
        return open_table(spark, settings)
    if settings.format == "manifest":
        return open_manifest(spark, settings, max_bytes)
    folder = open_folder(settings.path)
    if not folder.fs.isdir(folder.root):
        raise SourceError(f"source.path={settings.path} is not a folder that can be read; check the path")
    if settings.format in _OF_ARRAYS:
        return _OF_ARRAYS[settings.format](spark, folder, settings)
    return _OF_FOLDERS[settings.format](spark, folder, settings, max_bytes)


# Imports neither TensorFlow nor MLflow: tests/unit/test_import_rules.py reads this.
LIGHT_BUT_FOR = ()
