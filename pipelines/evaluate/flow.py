"""Evaluate a registered model on an image set: an MLflow run with metrics, and a report of one page."""

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
from pipelines.evaluate.image_predictions import compute_evaluation, image_predictions
from pipelines.spark.progress import Progress
from pipelines.spark.read_parts import literal_path, read_split
from pipelines.tracking.registry import fetch_model
from pipelines.tracking.runs import model_run
from pipelines.tracking.store import as_tracking_error, connect
from pipelines.tracking.tracker import EVALUATION, Tracker


@dataclass(frozen=True)
class Evaluated:
    """An evaluation, the id and the URL of its MLflow run, and the location of the report."""

    evaluation: Evaluation
    run_id: str
    run_url: str
    report: str


def evaluate(spark: SparkSession, settings: EvaluateSettings, progress: Progress | None = None) -> Evaluated:
    """Evaluate a registered model on a split. Metrics, figures and a report go into one MLflow run.

    Raises ConfigError, ImageSetError and ModelError before anything is scored, TrackingError also afterwards.

    Example:

        settings = EvaluateSettings(model="models:/digits@champion", data={"path": "sets/digits"})
        evaluated = evaluate(spark, settings)
        print(evaluated.evaluation.accuracy, evaluated.report)
    """
    image_set = open_labelled(settings.data.path, settings.data.split)
    store = connect(settings.tracking)
    with TemporaryDirectory(prefix="sparkcnn-evaluation-") as temporary:
        model = fetch_model(settings.model, Path(temporary))
        image_set.check_fits(model.card.image)
        image_set.check_classes(model.card.classes)
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
            options, split = settings.evaluate, settings.data.split
            with image_predictions(spark, image_set, split, model, options.corruptions, progress) as predicted_rows:
                evaluation = compute_evaluation(predicted_rows, image_set, split, model, options)
            report = keep_evaluation(tracker, evaluation, settings.model_dump(mode="json"))
            return Evaluated(evaluation, tracker.run_id, tracker.run_url, report)


def open_labelled(path: str, split: str) -> ImageSet:
    """Open an image set whose split has labels. Raises ImageSetError, or ConfigError if the set has no labels."""
    image_set = open_image_set(path)
    image_set.split(split)
    if not image_set.classes:
        raise ConfigError(
            f"data.path={image_set.folder.uri} has no labels to compare predictions with; name a set that has labels"
        )
    return image_set


def keep_evaluation(
    tracker: Tracker, evaluation: Evaluation, settings: dict[str, Any], gates: Sequence[Gate] = ()
) -> str:
    """Log the metrics, report, figures and evaluation.json in a run. Return the location of the report."""
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
    return tracker.location_of(f"{EVALUATION}/{REPORT}")


def accuracy(spark: SparkSession, predictions: Predictions, image_set: ImageSet, split: str) -> float:
    """Return the fraction of a split's images whose predicted class is the true one, from a join on image_id.

    An image without a prediction counts as wrong. Raises ModelError if the predictions are not those of the split.

    Example:

        image_set = open_image_set("sets/digits")
        predictions = score(spark, ScoreSettings(...))  # of the images of the test split
        print(accuracy(spark, predictions, image_set, "test"))
    """
    predicted = spark.read.parquet(*map(literal_path, predictions.paths())).select(IMAGE_ID, LABEL_NAME)
    # Compare names, not labels: the set that the model was trained on may order its classes differently.
    class_names = F.array(*map(F.lit, image_set.classes))
    truth = read_split(spark, image_set, split).select(
        IMAGE_ID, F.element_at(class_names, F.col(LABEL) + 1).alias("class_name")
    )
    right = F.coalesce(F.col(LABEL_NAME) == F.col("class_name"), F.lit(False)).cast("int")
    found = (
        truth.join(predicted, IMAGE_ID, "left").agg(F.count("*").alias("rows"), F.avg(right).alias("accuracy")).first()
    )
    rows = image_set.split(split).rows
    if found is None or found["rows"] != rows or predictions.counts["rows"] != rows:
        raise ModelError(
            f"{predictions.path} has {predictions.counts['rows']} predictions, but {image_set.folder.uri} has {rows} "
            f"{split} images; score that split"
        )
    return found["accuracy"]
