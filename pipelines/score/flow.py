"""Images and a registered model -> predictions: tasks read, decode, predict and write; the driver commits."""

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import reduce
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
from pyspark.sql import SparkSession

from cnnlib.config import ScoreInputSettings, ScoreSettings, SourceSettings, flatten
from cnnlib.errors import ConfigError, ModelError, OutputExistsError
from cnnlib.image_set.contract import open_image_set
from cnnlib.image_set.splits import SPLITS
from cnnlib.predictions import contract
from cnnlib.predictions.contract import (
    EarlierPredictions,
    IncompleteError,
    Predictions,
    publish_predictions,
    read_earlier,
)
from cnnlib.predictions.drift import stability_of
from cnnlib.predictions.score_batch import ScorePlan, score_images
from cnnlib.predictions.scored_before import ScoredBefore
from cnnlib.predictions.writer import WrittenPredictions
from cnnlib.sealed.frozen.predict import ModelCard
from cnnlib.storage.folder import Folder, discard_unpublished, make_writable, new_run_id, open_folder, refuse_occupied
from pipelines.score.new_files import Mark, stream_with_batches, take_new_files
from pipelines.score.worker_model import ship_model, worker_classifier
from pipelines.sources import MAX_IMAGE_BYTES, open_source
from pipelines.sources.image_folder import unlabelled_images
from pipelines.sources.image_set import images_of_set
from pipelines.sources.source import Images
from pipelines.spark.progress import Progress
from pipelines.spark.tasks import tasks_for
from pipelines.tracking.registry import RegisteredModel, fetch_model
from pipelines.tracking.runs import model_run
from pipelines.tracking.store import connect
from pipelines.tracking.tracker import Tracker

# Tasks of small images have more of them: beside the start of a task, their work would be short.
IMAGES_A_TASK = 16384
MOST_IMAGES_A_TASK = 65536
PIXEL_BYTES_A_TASK = 64 * 2**20


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
    row there already are left out, and what is new is added; with stream, files that a job before has scored.

    Raises ConfigError, SourceError, ImageSetError, ModelError and OutputExistsError before anything is written, and
    IncompleteError when more than `score.max_failed_fraction` of the rows failed: the predictions are published all the
    same, and say that they are incomplete.
    """
    progress = progress or Progress()
    folder = open_folder(settings.output.path)
    adding = settings.score.mode != "all"
    if adding and settings.output.overwrite:
        raise ConfigError(
            f"score.mode={settings.score.mode} adds to what output.overwrite=true would replace; choose one of them"
        )
    refuse_occupied(folder, contract.COMMIT, overwrite=settings.output.overwrite or adding)
    with TemporaryDirectory(prefix="sparkcnn-model-") as temporary:
        store = connect(settings.tracking)
        model = fetch_model(settings.model, Path(temporary))
        job = _Job(spark, settings, folder, store, model, progress)
        if settings.score.mode == "stream":
            return job.score_new_files()
        source = read_input(spark, settings.input, model.card)
        return job.score(source, job.earlier() if adding else None)


@dataclass(frozen=True)
class _Job:
    """What the scorings of one job have in common: one, or one a batch of a stream."""

    spark: SparkSession
    settings: ScoreSettings
    folder: Folder
    store: str
    model: RegisteredModel
    progress: Progress

    def earlier(self) -> EarlierPredictions:
        """What is to be added to."""
        return read_earlier(self.folder, contract.schema_of(self.settings.score).names)

    def score(self, source: ScoreInput, earlier: EarlierPredictions | None, mark: Mark | None = None) -> Predictions:
        """Score and publish, together with `earlier`. `mark` says which batch of a stream this is."""
        folder, settings = self.folder, self.settings
        make_writable(folder, contract.COMMIT)
        plan = ScorePlan(
            folder=folder,
            run_id=new_run_id(),
            model=self.model.scored_with,
            scored_at=datetime.now(timezone.utc),
            raw_shape=source.raw_shape,
            settings=settings.score,
            before=self._before(earlier, mark),
        )
        with _run(self.store, settings, plan, source) as tracker:
            try:
                archive = ship_model(self.spark, self.model.folder)
                predictions = _score(source, plan, archive, self.model.card, self.progress)
                predictions = replace(predictions, mlflow_run=tracker.run_id)
                if earlier is not None:
                    streams = earlier.streams | ({mark.stream: mark.batch} if mark else {})
                    predictions = replace(predictions, files=earlier.files + predictions.files, streams=streams)
                # Rows that lack a prediction stay in the set, also when later ones have theirs.
                whole = replace(predictions, complete=predictions.complete and (earlier is None or earlier.complete))
                publish_predictions(whole, settings.model_dump(mode="json"), earlier)
            except BaseException:
                discard_unpublished(folder, contract.COMMIT, plan.run_id)
                raise
            tracker.log_scoring(predictions)
            if not predictions.complete:
                raise IncompleteError(_incomplete(predictions, settings.score.max_failed_fraction), whole)
        return whole

    def score_new_files(self) -> Predictions:
        """Score what has come into a folder since the job before; gives the sum of what the batches gave."""
        settings = self.settings
        if settings.input.format != "image_folder" or settings.input.path is None:
            raise ConfigError("score.mode=stream looks for new files: it takes input.format=image_folder and a path")
        source = open_folder(settings.input.path)
        base = settings.score.checkpoint or f"{self.folder.uri}-checkpoint"
        # A version that scores all again has a stream of its own, which begins with the first file.
        checkpoint = f"{base}/{self.model.card.model_sha256 if settings.score.rescore else 'any'}"
        stream = stream_with_batches(checkpoint)
        if stream is not None and stream not in self.earlier().streams:
            raise OutputExistsError(
                f"score.checkpoint={base} is of files whose predictions are not at output.path={self.folder.uri}; name "
                "the output that they are in, or another checkpoint to score all files again"
            )
        scored: list[Predictions] = []

        def take(files: Mapping[str, int], mark: Mark) -> None:
            earlier = self.earlier()
            if earlier.streams.get(mark.stream, -1) >= mark.batch:
                return  # published by a job that ended before its checkpoint knew
            tasks = _tasks_for(self.spark, len(files), self.model.card)
            images = unlabelled_images(self.spark, source, files, tasks, MAX_IMAGE_BYTES)
            digest = hashlib.sha256(f"{mark.stream} {mark.batch}".encode()).hexdigest()
            scored.append(self.score(ScoreInput(images, len(files), None, source.uri, digest), earlier, mark))

        take_new_files(self.spark, source, checkpoint, take)
        return reduce(_together, scored, self._nothing())

    def _before(self, earlier: EarlierPredictions | None, mark: Mark | None) -> ScoredBefore | None:
        """The rows that count as done: a stream knows its files, and asks only where others have added rows too."""
        asked = self.settings.score
        if earlier is None:
            return None
        alone = mark is not None and (not earlier.files or set(earlier.streams) == {mark.stream})
        if alone and not asked.rescore:
            return None
        paths = tuple(file.path for file in earlier.files)
        return ScoredBefore(self.folder.uri, paths, self.model.card.model_sha256 if asked.rescore else None)

    def _nothing(self) -> Predictions:
        """Of a job that finds nothing new: what is there already."""
        earlier = self.earlier()
        return Predictions(
            folder=self.folder,
            counts={"rows": 0, "scored": 0, "failed": 0},
            failed_by_code={},
            model=self.model.scored_with,
            complete=earlier.complete,
            seconds=0.0,
            files=earlier.files,
            streams=earlier.streams,
        )


def _together(first: Predictions, second: Predictions) -> Predictions:
    """What two batches of a stream come to; the second has the first's files too."""
    return replace(
        second,
        counts={name: first.counts.get(name, 0) + count for name, count in second.counts.items()},
        failed_by_code=dict(Counter(first.failed_by_code) + Counter(second.failed_by_code)),
        complete=first.complete and second.complete,
        seconds=first.seconds + second.seconds,
        stability=None if first.counts["rows"] else second.stability,
    )


def _run(store: str, settings: ScoreSettings, plan: ScorePlan, source: ScoreInput) -> AbstractContextManager[Tracker]:
    return model_run(
        store,
        settings.tracking.experiment,
        f"score with {plan.model}",
        flatten(settings),
        plan.model.as_dict(),
        (source.uri, source.digest),
        "scoring",
    )


def read_input(spark: SparkSession, settings: ScoreInputSettings, card: ModelCard) -> ScoreInput:
    """Open what is to be scored. Raises ModelError where an image set's images were not made as the model's."""
    if settings.format != "image_set":
        source = open_source(spark, SourceSettings(format=settings.format, path=settings.path, labels="none"))
        tasks = _tasks_for(spark, source.found, card)
        uri = settings.path or settings.format
        return ScoreInput(source.images(None, tasks), source.found, source.raw_shape, uri, source.digest)
    if settings.path is None:
        raise ConfigError("input.path is missing; name the image set to score")
    image_set = open_image_set(settings.path)
    image_set.check_fits(card.image)
    splits = [
        split
        for split in (SPLITS if settings.split == "all" else (settings.split,))
        if settings.split != "all" or image_set.splits[split].rows
    ]
    rows = sum(image_set.split(split).rows for split in splits)
    raw_shape = image_set.image.shape if image_set.image.encoding == "raw" else None
    images = images_of_set(spark, image_set, splits, _tasks_for(spark, rows, card))
    return ScoreInput(images, rows, raw_shape, image_set.folder.uri, image_set.fingerprint)


def _tasks_for(spark: SparkSession, images: int, card: ModelCard) -> int:
    fitting = PIXEL_BYTES_A_TASK // card.image.size_bytes
    return tasks_for(spark, images, max(IMAGES_A_TASK, min(fitting, MOST_IMAGES_A_TASK)))


def _score(
    source: ScoreInput,
    plan: ScorePlan,
    archive: str,
    card: ModelCard,
    progress: Progress,
) -> Predictions:
    """Have tasks score, and account for every row. Raises ModelError where some did not come out."""

    def work(batches: Iterable[pa.RecordBatch], task: int, attempt: int) -> WrittenPredictions:
        return score_images(plan, worker_classifier(archive), batches, task, attempt)

    start = time.monotonic()
    shares = source.images.map(work, progress, f"score {source.rows:,} images", source.rows)
    return _accounted(plan, card, source.rows, shares, time.monotonic() - start)


def _accounted(
    plan: ScorePlan, card: ModelCard, expected: int, shares: list[WrittenPredictions], seconds: float
) -> Predictions:
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


def _incomplete(predictions: Predictions, max_failed: float) -> str:
    by_code = ", ".join(f"{count} {code}" for code, count in predictions.failed_by_code.items())
    failed = predictions.counts["failed"]
    return (
        f"{failed} of {predictions.counts['scored'] + failed} rows have no prediction ({by_code}), more than "
        f"score.max_failed_fraction={max_failed} allows; the predictions of the others are in {predictions.path}, "
        "marked as incomplete"
    )
