"""Predict the images of a labelled split as Spark tasks, and let Spark count the figures of an evaluation."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from cnnlib.config import EvaluationExtrasSettings
from cnnlib.errors import ImageSetError
from cnnlib.evaluation.image_predictions import (
    LABEL_PROBABILITY,
    LABEL_RANK,
    PREDICTED,
    ImagePredictionsPlan,
    all_classes,
    predict_labelled,
)
from cnnlib.evaluation.metrics import RELIABILITY_BINS, Confusion, Reliability, reliability_of
from cnnlib.evaluation.result import TOP_K, Evaluation, Mistake
from cnnlib.image_set.contract import IMAGE, IMAGE_ID, LABEL, PATH, ImageSet, stored_pixels
from cnnlib.reports.page import thumbnail
from cnnlib.sealed.frozen.predict import ERROR, PROBABILITY
from pipelines.score.worker_model import ship_model, worker_classifier
from pipelines.sources.image_set import images_of_set
from pipelines.sources.source import counted
from pipelines.spark.progress import Progress, images_done
from pipelines.spark.read_parts import read_split
from pipelines.spark.session import with_settings
from pipelines.spark.tasks import TASK_SETTINGS, tasks_for, user_errors_from_tasks
from pipelines.tracking.registry import FetchedModel

# An image goes through the model once as it is, and once more for each corruption.
IMAGES_A_TASK = 4096

# The log loss clips probabilities at the epsilon of float32, as scikit-learn's log_loss does.
_LEAST_PROBABILITY = float(np.finfo(np.float32).eps)


@contextmanager
def image_predictions(
    spark: SparkSession,
    image_set: ImageSet,
    split: str,
    model: FetchedModel,
    corruptions: Sequence[str] = (),
    progress: Progress | None = None,
) -> Iterator[DataFrame]:
    """Yield the predictions for a split as a DataFrame, which stays in Spark's memory while the body runs.

    It has one row of `ImagePredictionsPlan.schema` per image. The caller must have checked that the model takes the
    images of the set. Raises ImageSetError if the files of the split do not have as many rows as dataset.json says.
    """
    rows = image_set.split(split).rows
    classes = all_classes(image_set.classes, model.card.classes)
    raw_shape = image_set.image.shape if image_set.image.encoding == "raw" else None
    plan = ImagePredictionsPlan(classes, raw_shape, tuple(corruptions))
    images = images_of_set(spark, image_set, [split], tasks_for(spark, rows, IMAGES_A_TASK), labels=True)
    archive, read = ship_model(spark, model.folder), images.read
    title = f"evaluate {model.scored_with} on {rows:,} images"
    with user_errors_from_tasks(spark), with_settings(spark, TASK_SETTINGS):
        with images_done(progress or Progress(), spark, title, rows) as count_images:

            def predict(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
                return predict_labelled(plan, worker_classifier(archive), counted(read(batches), count_images))

            predicted_rows = images.rows.mapInArrow(predict, from_arrow_schema(plan.schema)).persist()
            found = predicted_rows.count()
        try:
            if found != rows:
                raise ImageSetError(
                    f"dataset.json of {image_set.folder.uri} names {rows} {split} images, but its files have {found}; "
                    "ingest the set again"
                )
            yield predicted_rows
        finally:
            predicted_rows.unpersist()


def compute_evaluation(
    predicted_rows: DataFrame,
    image_set: ImageSet,
    split: str,
    model: FetchedModel,
    options: EvaluationExtrasSettings,
) -> Evaluation:
    """Compute all figures of an evaluation from the rows that `image_predictions` yields for the same arguments."""
    classes = all_classes(image_set.classes, model.card.classes)
    robustness = {name: F.avg(_is_label(name).cast("int")).alias(name) for name in options.corruptions}
    totals = predicted_rows.agg(
        F.avg(-F.log(F.greatest(F.col(LABEL_PROBABILITY), F.lit(_LEAST_PROBABILITY)))).alias("log_loss"),
        F.avg(F.coalesce(F.col(LABEL_RANK) < TOP_K, F.lit(False)).cast("int")).alias("top"),
        *robustness.values(),
    ).first()
    assert totals is not None  # An aggregate without groups always has one row.
    confusion, failed_by_code = _confusion(predicted_rows, classes)
    return Evaluation(
        model=model.scored_with,
        image_set=image_set,
        split=split,
        confusion=confusion,
        reliability=_reliability(predicted_rows),
        log_loss=float("nan") if totals["log_loss"] is None else totals["log_loss"],
        top_5_accuracy=totals["top"] if len(classes) > TOP_K else None,
        robustness={name: totals[name] for name in robustness},
        failed_by_code=failed_by_code,
        mistakes=_worst_mistakes(predicted_rows, image_set, split, classes, options.mistakes),
    )


def count_discordant(first: DataFrame, second: DataFrame) -> tuple[int, int]:
    """Count the images that only the first of two models predicts correctly, and those that only the second does.

    Both frames are rows of `image_predictions` for the same split.
    """
    # The label belongs to the key, because a set may keep one image under two classes.
    keys = [IMAGE_ID, LABEL]
    right = _is_label(PREDICTED)
    pairs = first.select(*keys, right.alias("first")).join(second.select(*keys, right.alias("second")), keys)
    counts = {(row["first"], row["second"]): row["count"] for row in pairs.groupBy("first", "second").count().collect()}
    return counts.get((True, False), 0), counts.get((False, True), 0)


def _is_label(predicted: str) -> Column:
    return F.coalesce(F.col(predicted) == F.col(LABEL), F.lit(False))


def _confusion(predicted_rows: DataFrame, classes: tuple[str, ...]) -> tuple[Confusion, dict[str, int]]:
    """Count how often each class was predicted as each class, and the images without a prediction by error code."""
    counts = np.zeros((len(classes), len(classes)), np.int64)
    failed = np.zeros(len(classes), np.int64)
    by_code: Counter[str] = Counter()
    code = F.substring_index(F.col(ERROR), ":", 1)
    for label, predicted, failure, images in predicted_rows.groupBy(LABEL, PREDICTED, code).count().collect():
        if predicted is None:
            failed[label] += images
            by_code[failure] += images
        else:
            counts[label, predicted] += images
    return Confusion(classes, counts, failed), dict(by_code.most_common())


def _reliability(predicted_rows: DataFrame) -> Reliability:
    number = F.greatest(F.ceil(F.col(PROBABILITY) * RELIABILITY_BINS) - 1, F.lit(0)).cast("int")
    right = F.avg(_is_label(PREDICTED).cast("int"))
    bins = (
        predicted_rows.where(F.col(PREDICTED).isNotNull()).groupBy(number).agg(F.count("*"), F.avg(PROBABILITY), right)
    )
    return reliability_of({number: tuple(means) for number, *means in bins.collect()})


def _worst_mistakes(
    predicted_rows: DataFrame, image_set: ImageSet, split: str, classes: Sequence[str], most: int
) -> tuple[Mistake, ...]:
    if not most:
        return ()
    worst = (
        predicted_rows.where(F.col(PREDICTED) != F.col(LABEL)).orderBy(LABEL_PROBABILITY, IMAGE_ID, LABEL).limit(most)
    )
    rows = worst.collect()
    stored = read_split(predicted_rows.sparkSession, image_set, split).where(
        F.col(IMAGE_ID).isin([row[IMAGE_ID] for row in rows])
    )
    images = {row[IMAGE_ID]: bytes(row[IMAGE]) for row in stored.select(IMAGE_ID, IMAGE).collect()} if rows else {}
    return tuple(
        Mistake(
            path=row[PATH],
            true=classes[row[LABEL]],
            predicted=classes[row[PREDICTED]],
            probability=row[PROBABILITY],
            true_probability=row[LABEL_PROBABILITY],
            picture=thumbnail(stored_pixels(images[row[IMAGE_ID]], image_set.image)),
        )
        for row in rows
    )
