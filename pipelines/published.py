"""The data files of a published folder as a DataFrame: only those that belong to it."""

from collections.abc import Iterable

from pyspark.sql import DataFrame, SparkSession

from cnnlib.imageset import ImageSet
from cnnlib.storage import Folder
from pipelines.sources.binary_files import literal_path


def read_parts(spark: SparkSession, folder: Folder, paths: Iterable[str]) -> DataFrame:
    """Read Parquet files of a folder, by their paths relative to it; at least one."""
    return spark.read.parquet(*(literal_path(f"{folder.uri}/{path}") for path in paths))


def read_split(spark: SparkSession, image_set: ImageSet, *splits: str) -> DataFrame:
    """Read the splits of an image set, columns as in `imageset.SCHEMA`."""
    files = [file.path for split in splits for file in image_set.split(split).files]
    return read_parts(spark, image_set.folder, files)
