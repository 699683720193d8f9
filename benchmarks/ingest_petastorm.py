"""Make a data set of images in petastorm's own way, after its examples/imagenet/generate_petastorm_imagenet.py.

On current Arrow, NumPy and Spark, petastorm needs the Arrow bridge, here and in Spark's Python workers. It also needs
OpenCV (`opencv-python-headless`), which is an extra of petastorm. Workers import this module to find `to_row`, so they
install the bridge before they import petastorm.
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

# The value in petastorm's example.
ROW_GROUP_SIZE_MB = 256
# With this many tasks, no core waits long for another at the end.
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
    """Decode a photograph as the ceiling does, and encode it. petastorm's own example uses OpenCV, which is slower."""
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
