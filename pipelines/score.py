"""Images and a registered model -> predictions: a pandas UDF that loads the model once a Python worker."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from cnnlib import predictions as contract
from cnnlib.config import ScoreInputSettings, ScoreSettings, SourceSettings
from cnnlib.errors import ConfigError, LimitError, ModelError
from cnnlib.imageset import CODE, IMAGE, IMAGE_ID, MESSAGE, PATH, open_image_set
from cnnlib.imageset_writer import CONTENT
from cnnlib.predict import CARD_FILE, ERROR, LABEL, LABEL_NAME, PROBABILITY, ModelCard, read_card
from cnnlib.predictions import Predictions, publish_predictions
from cnnlib.predictions_writer import Share, write_share
from cnnlib.sealed import ARTIFACTS
from cnnlib.splits import SPLITS
from cnnlib.storage import Folder, discard_unpublished, make_writable, new_run_id, open_folder, refuse_occupied
from pipelines.prediction_udf import Shape, prediction_udf
from pipelines.progress import Progress, spark_tasks
from pipelines.published import read_split
from pipelines.registry import RegisteredModel, fetch_model
from pipelines.session import ship_folder
from pipelines.sources import open_source
from pipelines.tasks import run_on_partitions, tasks_for
from pipelines.tracking import connect

IMAGES_A_TASK = 8192


@dataclass(frozen=True)
class ScoreInput:
    """What is scored: `frame` has image_id, path, content, code, message; see `pipelines.sources.source.Source`."""

    frame: DataFrame
    rows: int
    raw_shape: Shape | None


def score(spark: SparkSession, settings: ScoreSettings, progress: Progress | None = None) -> Predictions:
    """Score images with a registered model and publish a prediction for every one at `settings.output.path`.

    The model's alias is resolved once; name and version stand in every row. An image that cannot be decoded gets an
    error and no prediction. Raises ConfigError, SourceError, ImageSetError, ModelError and OutputExistsError before
    anything is written, and LimitError when more than `score.max_failed_fraction` of the rows failed: the
    predictions are published all the same.
    """
    progress = progress or Progress()
    folder = open_folder(settings.output.path)
    refuse_occupied(folder, contract.COMMIT, overwrite=settings.output.overwrite)
    connect(settings.tracking)
    with TemporaryDirectory(prefix="sparkcnn-model-") as temporary:
        model = fetch_model(settings.model, Path(temporary))
        source = read_input(spark, settings.input, read_card(model.folder / ARTIFACTS))
        make_writable(folder, contract.COMMIT)
        run_id = new_run_id()
        archive = ship_model(spark, model)
        predicted = predict_frame(source, model, archive)
        try:
            with spark_tasks(progress, spark, f"score {source.rows:,} images"):
                shares = run_on_partitions(predicted, partial(write_share, folder, run_id))
            predictions = _predictions(shares, folder, model, source.rows)
            publish_predictions(predictions, settings.model_dump(mode="json"))
        except BaseException:
            discard_unpublished(folder, contract.COMMIT, run_id)
            raise
    _check_failed(predictions, settings.score.max_failed_fraction)
    return predictions


def read_input(spark: SparkSession, settings: ScoreInputSettings, card: ModelCard) -> ScoreInput:
    """Open what is to be scored. Raises ModelError where an image set's images are not the model's."""
    if settings.format != "image_set":
        source = open_source(spark, SourceSettings(format=settings.format, path=settings.path, labels="none"))
        # An image that cannot be read has no content to name it by; its path keeps it apart from the others.
        image_id = F.coalesce(F.sha2(CONTENT, 256), F.sha2(F.col(PATH).cast("binary"), 256))
        tasks = tasks_for(spark, source.found, IMAGES_A_TASK)
        frame = source.images(None, tasks).frame().withColumn(IMAGE_ID, image_id)
        return ScoreInput(frame, source.found, source.raw_shape)
    if settings.path is None:
        raise ConfigError("input.path is missing; name the image set to score")
    image_set = open_image_set(settings.path)
    if image_set.image.shape != card.image.shape:
        raise ModelError(
            f"{settings.path} has images of {image_set.image.shape} (height, width, channels), the model takes "
            f"{card.image.shape}; score an image set of that shape, or the source itself with input.format"
        )
    splits = [
        split
        for split in (SPLITS if settings.split == "all" else (settings.split,))
        if settings.split != "all" or image_set.splits[split].rows
    ]
    frame = read_split(spark, image_set, *splits).select(
        IMAGE_ID,
        PATH,
        F.col(IMAGE).alias(CONTENT),
        F.lit(None).cast("string").alias(CODE),
        F.lit(None).cast("string").alias(MESSAGE),
    )
    return ScoreInput(frame, sum(image_set.splits[split].rows for split in splits), image_set.image.shape)


def ship_model(spark: SparkSession, model: RegisteredModel) -> str:
    """Send a model's folder to every executor, which unpacks it once. Gives the name that it has there."""
    # Named by content: a model that this session has scored with before is there already, and loaded in its workers.
    card = (model.folder / ARTIFACTS / CARD_FILE).read_bytes()
    return ship_folder(spark, model.folder, f"sparkcnn-model-{hashlib.sha256(card).hexdigest()[:16]}")


def predict_frame(source: ScoreInput, model: RegisteredModel, archive: str) -> DataFrame:
    """Add the prediction to every row of the input: the columns of a predictions set."""
    predict = prediction_udf(archive, source.raw_shape)
    # What could not be read at all has an error already, which says more than the model could.
    unreadable = F.when(F.col(CODE).isNotNull(), F.concat_ws(": ", CODE, MESSAGE))
    return (
        source.frame.withColumn("prediction", predict(F.col(CONTENT)))
        .select("*", "prediction.*")
        .select(
            IMAGE_ID,
            PATH,
            LABEL,
            LABEL_NAME,
            PROBABILITY,
            F.lit(model.name).alias(contract.MODEL_NAME),
            F.lit(model.version).cast("string").alias(contract.MODEL_VERSION),
            F.coalesce(unreadable, F.col(ERROR)).alias(ERROR),
            F.lit(datetime.now(timezone.utc)).alias(contract.SCORED_AT),
        )
    )


def _predictions(shares: list[Share], folder: Folder, model: RegisteredModel, expected_rows: int) -> Predictions:
    rows = sum(share.rows for share in shares)
    failed = sum((share.failed for share in shares), Counter[str]())
    if rows != expected_rows:
        raise ModelError(
            f"the input has {expected_rows} rows, but {rows} came out; nothing was published: was it changed meanwhile?"
        )
    files = (share.file for share in shares if share.file is not None)
    return Predictions(
        folder=folder,
        counts={"rows": rows, "scored": rows - failed.total(), "failed": failed.total()},
        failed_by_code=dict(failed.most_common()),
        model_name=model.name,
        model_version=model.version,
        files=tuple(sorted(files, key=lambda file: file.path)),
    )


def _check_failed(predictions: Predictions, max_fraction: float) -> None:
    failed, rows = predictions.counts["failed"], predictions.counts["rows"]
    if failed > max_fraction * rows:
        by_code = ", ".join(f"{count} {code}" for code, count in predictions.failed_by_code.items())
        raise LimitError(
            f"{failed} of {rows} rows have no prediction ({by_code}), more than score.max_failed_fraction="
            f"{max_fraction} allows; the predictions of the others are in {predictions.path}"
        )
