"""Predictions and the labels of an image set -> how good the model is."""

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from cnnlib.errors import ModelError
from cnnlib.imageset import IMAGE_ID, LABEL, ImageSet
from cnnlib.predict import LABEL_NAME
from cnnlib.predictions import Predictions
from pipelines.published import literal_path, read_split


def accuracy(spark: SparkSession, predictions: Predictions, image_set: ImageSet, split: str) -> float:
    """Share of a split's images whose predicted class is the true one, from a join on image_id.

    An image without a prediction counts as wrong. Raises ModelError when the predictions are not those of the split.
    """
    predicted = spark.read.parquet(*map(literal_path, predictions.paths())).select(IMAGE_ID, LABEL_NAME)
    # By name: the model may have been trained on a set that orders its classes otherwise.
    class_names = F.array(*map(F.lit, image_set.classes))
    truth = read_split(spark, image_set, split).select(
        IMAGE_ID, F.element_at(class_names, F.col(LABEL) + 1).alias("class_name")
    )
    right = F.coalesce(F.col(LABEL_NAME) == F.col("class_name"), F.lit(False)).cast("int")
    row = (
        truth.join(predicted, IMAGE_ID, "left").agg(F.count("*").alias("rows"), F.avg(right).alias("accuracy")).first()
    )
    rows = image_set.split(split).rows
    if row is None or row["rows"] != rows or predictions.counts["rows"] != rows:
        raise ModelError(
            f"{predictions.path} has {predictions.counts['rows']} predictions, but {image_set.folder.uri} has {rows} "
            f"{split} images; score that split"
        )
    return row["accuracy"]
