"""A registered model and an image set -> how good it is, in an MLflow run and on one page."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from cnnlib.config import EvaluateSettings, flatten
from cnnlib.errors import ConfigError, ModelError
from cnnlib.evaluation.gates import Gate
from cnnlib.evaluation.result import Evaluation
from cnnlib.image_set.contract import IMAGE_ID, LABEL, ImageSet, open_image_set
from cnnlib.predictions.contract import Predictions
from cnnlib.reports.evaluation import render_evaluation
from cnnlib.reports.figures import confusion_figure, reliability_figure
from cnnlib.sealed.frozen.predict import LABEL_NAME
from cnnlib.storage.folder import REPORT
from pipelines.evaluate.image_predictions import evaluation_of, image_predictions
from pipelines.spark.progress import Progress
from pipelines.spark.read_parts import literal_path, read_split
from pipelines.tracking.registry import fetch_model
from pipelines.tracking.runs import model_run
from pipelines.tracking.store import connect
from pipelines.tracking.tracker import EVALUATION, Tracker, as_tracking_error


@dataclass(frozen=True)
class Evaluated:
    """An evaluation, the id and the page of its MLflow run, and where the report lies."""

    evaluation: Evaluation
    run_id: str
    run_url: str
    report: str


def evaluate(spark: SparkSession, settings: EvaluateSettings, progress: Progress | None = None) -> Evaluated:
    """Find out how good a registered model is on a split, in one MLflow run with figures and a report.

    Raises ConfigError, ImageSetError and ModelError before anything is scored, TrackingError also after.
    """
    image_set = open_labelled(settings.data.path, settings.data.split)
    store = connect(settings.tracking)
    with TemporaryDirectory(prefix="sparkcnn-evaluation-") as temporary:
        model = fetch_model(settings.model, Path(temporary))
        image_set.check_fits(model.card.image)
        with (
            as_tracking_error(store),
            model_run(
                store,
                settings.tracking.experiment,
                f"evaluate {model.scored_with}",
                flatten(settings),
                model.scored_with.as_dict(),
                (image_set.folder.uri, image_set.fingerprint),
                "evaluation",
            ) as tracker,
        ):
            asked, split = settings.evaluate, settings.data.split
            with image_predictions(spark, image_set, split, model, asked.corruptions, progress) as predicted_rows:
                evaluation = evaluation_of(predicted_rows, image_set, split, model, asked)
            report = keep_evaluation(tracker, evaluation, settings.model_dump(mode="json"))
            return Evaluated(evaluation, tracker.run_id, tracker.run_url, report)


def open_labelled(path: str, split: str) -> ImageSet:
    """Open an image set to compare predictions with. Raises ImageSetError, or ConfigError where it has no labels."""
    image_set = open_image_set(path)
    image_set.split(split)
    if not image_set.classes:
        raise ConfigError(f"data.path={image_set.folder.uri} has no labels to compare predictions with; take another")
    return image_set


def keep_evaluation(
    tracker: Tracker, evaluation: Evaluation, settings: dict[str, Any], gates: Sequence[Gate] = ()
) -> str:
    """Log metrics, report, figures and evaluation.json with a run; gives where the report lies."""
    with TemporaryDirectory(prefix="sparkcnn-report-") as temporary:
        folder = Path(temporary)
        figures = {
            "confusion_matrix.svg": confusion_figure(evaluation.confusion),
            "reliability.svg": reliability_figure(evaluation.reliability),
        }
        for name, svg in figures.items():
            (folder / name).write_bytes(svg)
        (folder / REPORT).write_text(render_evaluation(evaluation, figures, settings, gates), "utf-8")
        content = evaluation.as_dict() | ({"gates": [vars(gate) for gate in gates]} if gates else {})
        (folder / "evaluation.json").write_text(json.dumps(content, indent=2) + "\n", "utf-8")
        tracker.log_evaluation(evaluation.metrics(), folder)
    return tracker.place_of(f"{EVALUATION}/{REPORT}")


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
