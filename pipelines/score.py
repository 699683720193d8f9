"""Images and a registered model -> predictions: tasks read, decode, predict and write; the driver commits."""

import time
from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
from pyspark.sql import SparkSession

from cnnlib import predictions as contract
from cnnlib.config import ScoreInputSettings, ScoreSettings, SourceSettings, flatten
from cnnlib.errors import ConfigError, LimitError, ModelError
from cnnlib.imageset import ImageSet, open_image_set
from cnnlib.imageset_writer import Count
from cnnlib.predict import ModelCard, read_card
from cnnlib.predictions import EarlierPredictions, Predictions, ScoredWith, publish_predictions, read_earlier
from cnnlib.predictions_writer import Share
from cnnlib.scored_before import ScoredBefore
from cnnlib.scoring import ScorePlan, score_share
from cnnlib.sealed import ARTIFACTS
from cnnlib.splits import SPLITS
from cnnlib.stability import stability_of
from cnnlib.storage import Folder, discard_unpublished, make_writable, new_run_id, open_folder, refuse_occupied
from pipelines.progress import Progress
from pipelines.registry import fetch_model
from pipelines.sources import open_source
from pipelines.sources.image_set import images_of_set
from pipelines.sources.source import Images
from pipelines.store import connect
from pipelines.tasks import run_on_images, tasks_for
from pipelines.tracking import Tracker, scoring_run
from pipelines.worker_model import ship_model, worker_classifier

IMAGES_A_TASK = 16384


@dataclass(frozen=True)
class ScoreInput:
    """What is scored.

    `raw_shape` (height, width, channels) is set where it is arrays, not files; `uri` says where it is, `digest` changes
    when it does.
    """

    images: Images
    rows: int
    raw_shape: tuple[int, int, int] | None
    uri: str
    digest: str


def score(spark: SparkSession, settings: ScoreSettings, progress: Progress | None = None) -> Predictions:
    """Score images with a registered model and publish a prediction for every one at `settings.output.path`.

    The model's alias is resolved once; its name, version and the SHA-256 of its weights stand in every row. An image
    that cannot be decoded gets an error and no prediction. With `score.mode` incremental, images whose content has a
    row there already are left out, and what is new is added. Raises ConfigError, SourceError, ImageSetError, ModelError
    and OutputExistsError before anything is written, and LimitError when more than `score.max_failed_fraction` of the
    rows failed: the predictions are published all the same, and say that they are incomplete.
    """
    progress = progress or Progress()
    folder = open_folder(settings.output.path)
    adding = settings.score.mode == "incremental"
    if adding and settings.output.overwrite:
        raise ConfigError("score.mode=incremental adds to what output.overwrite=true would replace; choose one of them")
    refuse_occupied(folder, contract.COMMIT, overwrite=settings.output.overwrite or adding)
    earlier = read_earlier(folder, contract.schema_of(settings.score).names) if adding else None
    store = connect(settings.tracking)
    with TemporaryDirectory(prefix="sparkcnn-model-") as temporary:
        model = fetch_model(settings.model, Path(temporary))
        card = read_card(model.folder / ARTIFACTS)
        source = read_input(spark, settings.input, card)
        make_writable(folder, contract.COMMIT)
        plan = ScorePlan(
            folder=folder,
            run_id=new_run_id(),
            model=ScoredWith(model.name, model.version, card.model_sha256),
            scored_at=datetime.now(timezone.utc),
            raw_shape=source.raw_shape,
            settings=settings.score,
            before=_before(folder, earlier, card.model_sha256 if settings.score.rescore else None),
        )
        with _run(store, settings, plan, source) as tracker:
            try:
                archive = ship_model(spark, model.folder)
                predictions = _score(spark, source, plan, archive, card, progress)
                predictions = replace(
                    predictions,
                    mlflow_run=tracker.run_id,
                    files=(*(earlier.files if earlier else ()), *predictions.files),
                )
                publish_predictions(predictions, settings.model_dump(mode="json"), earlier)
            except BaseException:
                discard_unpublished(folder, contract.COMMIT, plan.run_id)
                raise
            tracker.log_scoring(predictions)
            _check_complete(predictions, settings.score.max_failed_fraction)
    return predictions


def _before(folder: Folder, earlier: EarlierPredictions | None, model_sha256: str | None) -> ScoredBefore | None:
    if earlier is None:
        return None
    return ScoredBefore(folder.uri, tuple(file.path for file in earlier.files), model_sha256)


def _run(store: str, settings: ScoreSettings, plan: ScorePlan, source: ScoreInput) -> AbstractContextManager[Tracker]:
    return scoring_run(
        store,
        settings.tracking.experiment,
        f"score with {plan.model}",
        flatten(settings),
        plan.model.as_dict(),
        source.uri,
        source.digest,
    )


def read_input(spark: SparkSession, settings: ScoreInputSettings, card: ModelCard) -> ScoreInput:
    """Open what is to be scored. Raises ModelError where an image set's images were not made as the model's."""
    if settings.format != "image_set":
        source = open_source(spark, SourceSettings(format=settings.format, path=settings.path, labels="none"))
        tasks = tasks_for(spark, source.found, IMAGES_A_TASK)
        uri = settings.path or settings.format
        return ScoreInput(source.images(None, tasks), source.found, source.raw_shape, uri, source.digest)
    if settings.path is None:
        raise ConfigError("input.path is missing; name the image set to score")
    image_set = open_image_set(settings.path)
    _check_spec(image_set, card)
    splits = [
        split
        for split in (SPLITS if settings.split == "all" else (settings.split,))
        if settings.split != "all" or image_set.splits[split].rows
    ]
    rows = sum(image_set.split(split).rows for split in splits)
    raw_shape = image_set.image.shape if image_set.image.encoding == "raw" else None
    images = images_of_set(spark, image_set, splits, tasks_for(spark, rows, IMAGES_A_TASK))
    return ScoreInput(images, rows, raw_shape, image_set.folder.uri, image_set.fingerprint)


def _check_spec(image_set: ImageSet, card: ModelCard) -> None:
    there, needed = ((*spec.shape, spec.resize) for spec in (image_set.image, card.image))
    if there != needed:
        raise ModelError(
            f"{image_set.folder.uri} has images of {there} (height, width, channels, resize), the model takes "
            f"{needed}; score an image set made so, or the source itself with input.format"
        )


def _score(
    spark: SparkSession,
    source: ScoreInput,
    plan: ScorePlan,
    archive: str,
    card: ModelCard,
    progress: Progress,
) -> Predictions:
    """Have tasks score, and account for every row. Raises ModelError where some did not come out."""

    def work(count_images: Count, batches: Iterable[pa.RecordBatch], task: int, attempt: int) -> Share:
        return score_share(plan, worker_classifier(archive), count_images, batches, task, attempt)

    start = time.monotonic()
    shares = run_on_images(spark, source.images, work, progress, f"score {source.rows:,} images", source.rows)
    return _accounted(plan, card, source.rows, shares, time.monotonic() - start)


def _accounted(plan: ScorePlan, card: ModelCard, expected: int, shares: list[Share], seconds: float) -> Predictions:
    rows = sum(share.rows for share in shares)
    skipped = sum(share.skipped for share in shares)
    failed = sum((share.failed for share in shares), Counter[str]())
    if rows + skipped != expected:
        raise ModelError(
            f"the input has {expected} rows, but {rows + skipped} came out; nothing was published: was it changed "
            "meanwhile?"
        )
    counts = {"rows": expected, "scored": rows - failed.total(), "failed": failed.total()}
    files = (share.file for share in shares if share.file is not None)
    return Predictions(
        folder=plan.folder,
        counts=counts if plan.before is None else counts | {"skipped": skipped},
        failed_by_code=dict(failed.most_common()),
        model=plan.model,
        complete=failed.total() <= plan.settings.max_failed_fraction * rows,
        seconds=seconds,
        files=tuple(sorted(files, key=lambda file: file.path)),
        columns=tuple(contract.schema_of(plan.settings).names),
        stability=stability_of(
            card,
            sum((share.labels for share in shares), Counter[int]()),
            sum((share.confidences for share in shares), Counter[int]()),
        ),
    )


def _check_complete(predictions: Predictions, max_failed: float) -> None:
    if not predictions.complete:
        by_code = ", ".join(f"{count} {code}" for code, count in predictions.failed_by_code.items())
        raise LimitError(
            f"{predictions.counts['failed']} of {predictions.counts['rows']} rows have no prediction ({by_code}), more "
            f"than score.max_failed_fraction={max_failed} allows; the predictions of the others are in "
            f"{predictions.path}, marked as incomplete"
        )
