"""The data files of a published folder as a DataFrame: only those that belong to it."""

import re
from collections.abc import Iterable

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from cnnlib.image_set.contract import SCHEMA, ImageSet
from cnnlib.storage.folder import Folder


def read_parts(spark: SparkSession, folder: Folder, paths: Iterable[str], schema: pa.Schema) -> DataFrame:
    """Read Parquet files of a folder, by their paths relative to it; at least one."""
    # Without the schema Spark would run a job to read it off a footer.
    reader = spark.read.schema(from_arrow_schema(schema))
    return reader.parquet(*(literal_path(f"{folder.uri}/{path}") for path in paths))


def read_split(spark: SparkSession, image_set: ImageSet, *splits: str) -> DataFrame:
    """Read the splits of an image set, columns as in `contract.SCHEMA`."""
    files = [file.path for split in splits for file in image_set.split(split).files]
    return read_parts(spark, image_set.folder, files, SCHEMA)


def literal_path(path: str) -> str:
    """Escape what Hadoop would take for a pattern: a folder may well be called photos[1]."""
    return re.sub(r"([\\{}\[\]*?])", r"\\\1", path)
