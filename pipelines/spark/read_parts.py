"""Read the Parquet files of a published folder as a DataFrame: only the files that its commit names."""

import re
from collections.abc import Iterable

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from cnnlib.image_set.contract import SCHEMA, ImageSet
from cnnlib.storage.folder import Folder


def read_parts(spark: SparkSession, folder: Folder, paths: Iterable[str], schema: pa.Schema) -> DataFrame:
    """Read Parquet files of a folder. `paths` are relative to the folder; at least one is needed."""
    # Without a schema, Spark would run a job that reads it from a file.
    reader = spark.read.schema(from_arrow_schema(schema))
    return reader.parquet(*(literal_path(f"{folder.uri}/{path}") for path in paths))


def read_split(spark: SparkSession, image_set: ImageSet, *splits: str) -> DataFrame:
    """Read splits of an image set, with the columns of `contract.SCHEMA`."""
    files = [file.path for split in splits for file in image_set.split(split).files]
    return read_parts(spark, image_set.folder, files, SCHEMA)


def literal_path(path: str) -> str:
    """Escape the characters that Hadoop takes for a pattern, because a folder may have them in its name.

    >>> print(literal_path("photos[1]"))
    photos\\[1\\]
    """
    return re.sub(r"([\\{}\[\]*?])", r"\\\1", path)
