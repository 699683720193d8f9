"""petastorm's own way of making a data set of images, after its examples/imagenet/generate_petastorm_imagenet.py.

What it takes to run on current Arrow, NumPy and Spark: the Arrow bridge, here and in Spark's Python workers, and
OpenCV (`opencv-python-headless`), which is petastorm's extra. Workers import this module to find `to_row`, and so
have the bridge before they meet petastorm.
"""

from pathlib import Path

import numpy as np
from pyspark.sql import Row, SparkSession

from benchmarks.photographs import LABELS, SIZE, draft_and_resize
from cnnlib.feed.petastorm import arrow_bridge

arrow_bridge.install()

from petastorm.codecs import CompressedImageCodec, ScalarCodec  # noqa: E402  (the bridge must be in place first)
from petastorm.etl.dataset_metadata import materialize_dataset  # noqa: E402
from petastorm.unischema import Unischema, UnischemaField, dict_to_spark_row  # noqa: E402
from pyspark.sql.types import IntegerType, StringType  # noqa: E402

# As in its example.
ROW_GROUP_SIZE_MB = 256
# Enough that a core never waits long for the other.
TASKS_PER_CORE = 4

PhotographSchema = Unischema(
    "PhotographSchema",
    [
        UnischemaField("path", np.str_, (), ScalarCodec(StringType()), False),
        UnischemaField("label", np.int32, (), ScalarCodec(IntegerType()), False),
        UnischemaField("image", np.uint8, (SIZE, SIZE, 3), CompressedImageCodec("png"), False),
    ],
)


def to_row(path: str) -> Row:
    """Read a photograph with the ceiling's decoder (OpenCV's, in petastorm's example, is slower), and encode it."""
    image = draft_and_resize(Path(path).read_bytes())
    return dict_to_spark_row(PhotographSchema, {"path": path, "label": LABELS[Path(path).parent.name], "image": image})


def materialize(spark: SparkSession, source: str, output: str) -> None:
    """Write the photographs of a folder as a petastorm data set."""
    url = Path(output).as_uri()
    paths = [str(path) for path in Path(source).glob("*/*.jpg")]
    with materialize_dataset(spark, url, PhotographSchema, ROW_GROUP_SIZE_MB):
        tasks = spark.sparkContext.defaultParallelism * TASKS_PER_CORE
        rows = spark.sparkContext.parallelize(paths, tasks).map(to_row)
        frame = spark.createDataFrame(rows, PhotographSchema.as_spark_schema())
        frame.write.mode("overwrite").option("compression", "none").parquet(url)
