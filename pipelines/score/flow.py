"""Images and a registered model -> predictions: tasks read, decode, predict and write; the driver publishes."""

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import reduce
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
from pyspark.sql import SparkSession

from cnnlib.config import ScoreSettings, flatten
from cnnlib.errors import ConfigError, ModelError, OutputExistsError
from cnnlib.predictions import contract
from cnnlib.predictions.contract import (
    EarlierPredictions,
    IncompleteError,
    Predictions,
    publish_predictions,
    read_earlier,
)
from cnnlib.predictions.drift import drift_of
from cnnlib.predictions.score_batch import ScorePlan, score_images
from cnnlib.predictions.scored_before import ScoredBefore
from cnnlib.predictions.writer import EXAMPLES, WrittenPredictions
from cnnlib.sources.left_out import in_words
from cnnlib.storage.folder import (
    Folder,
    check_output_is_free,
    new_run_id,
    open_folder,
    remove_unpublished,
    writing_run,
)
from pipelines.score.new_files import StreamBatch, for_each_batch_of_new_files, stream_with_batches
from pipelines.score.score_input import ScoreInput, read_files, read_input
from pipelines.score.worker_model import ship_model, worker_classifier
from pipelines.spark.progress import Progress
from pipelines.tracking.registry import FetchedModel, fetch_model
from pipelines.tracking.runs import model_run
from pipelines.tracking.store import connect


@dataclass(frozen=True)
class _ScoringJob:
    """Everything that stays the same for all batches of one scoring job."""

    spark: SparkSession
    settings: ScoreSettings
    folder: Folder
    store: str
    model: FetchedModel
    progress: Progress

    def read_published(self) -> EarlierPredictions:
        """Read the predictions that are published at the output path now."""
        return read_earlier(self.folder, contract.schema_of(self.settings.score).names)


def score(spark: SparkSession, settings: ScoreSettings, progress: Progress | None = None) -> Predictions:
    """Score images with a registered model, and publish one prediction per image at `settings.output.path`.

    The alias of the model is resolved once. Its name, its version and the SHA-256 of its weights stand in every row. An
    image that cannot be decoded gets an error and no prediction. `score.mode` says which images are scored:
    - all: every image of the input; the predictions are a new set.
    - incremental: images whose content has no row at the output path yet; their rows are added.
    - stream: files that no earlier job has scored; their rows are added.

    Raises ConfigError, SourceError, ImageSetError, ModelError and OutputExistsError before anything is written. Raises
    IncompleteError if more than `score.max_failed_fraction` of the rows failed; the predictions are published even so,
    marked as incomplete.

    Example::

        settings = ScoreSettings(
            model="models:/photos@champion",
            input={"path": "/data/photos"},  # an image set; its test split is scored
            output={"path": "/data/predictions"},
        )
        predictions = score(spark_session(), settings)
        predictions.counts  # {"rows": 10000, "scored": 9998, "failed": 2}
        pandas.read_parquet(predictions.paths())  # image_id, path, label, label_name, probability, …
    """
    folder = open_folder(settings.output.path)
    adding = settings.score.mode != "all"
    if adding and settings.output.overwrite:
        raise ConfigError(
            f"score.mode={settings.score.mode} adds rows to the predictions that output.overwrite=true would replace; "
            "choose one of them"
        )
    check_output_is_free(folder, contract.COMMIT, overwrite=settings.output.overwrite or adding)
    with TemporaryDirectory(prefix="sparkcnn-model-") as temporary:
        store = connect(settings.tracking)
        model = fetch_model(settings.model, Path(temporary))
        job = _ScoringJob(spark, settings, folder, store, model, progress or Progress())
        if settings.score.mode == "stream":
            return _score_new_files(job)
        source = read_input(spark, settings.input, model.card.image)
        return _score_and_publish(job, source, job.read_published() if adding else None)


def _score_new_files(job: _ScoringJob) -> Predictions:
    """Score the files that were added to a folder since the last job, and return the sum of all batches."""
    asked, source = job.settings.score, job.settings.input
    if source.format != "image_folder" or source.path is None:
        raise ConfigError(
            f"score.mode=stream scores the new files of a folder, received input.format={source.format} and "
            f"input.path={source.path}; use input.format=image_folder and a path"
        )
    folder = open_folder(source.path)
    base = asked.checkpoint or f"{job.folder.uri}-checkpoint"
    # With rescore every model has a stream of its own, which begins with the first file.
    checkpoint = f"{base}/{job.model.card.model_sha256 if asked.rescore else 'any'}"
    stream = stream_with_batches(checkpoint)
    if stream is not None and stream not in job.read_published().streams:
        raise OutputExistsError(
            f"score.checkpoint={base} has files whose predictions are not at output.path={job.folder.uri}; name the "
            "output that has them, or another checkpoint to score all files again"
        )
    batches: list[Predictions] = []

    def score_batch(sizes: Mapping[str, int], batch: StreamBatch) -> None:
        earlier = job.read_published()
        if earlier.streams.get(batch.stream, -1) >= batch.number:
            return  # an earlier job published this batch, but died before its checkpoint recorded that
        digest = hashlib.sha256(f"{batch.stream} {batch.number}".encode()).hexdigest()
        files = read_files(job.spark, folder, sizes, digest, job.model.card.image)
        batches.append(_score_and_publish(job, files, earlier, batch))

    for_each_batch_of_new_files(job.spark, folder, checkpoint, score_batch)
    return reduce(_sum_of_batches, batches, _nothing_new(job))


def _nothing_new(job: _ScoringJob) -> Predictions:
    """Describe the published predictions as the result of a job that found nothing new."""
    published = job.read_published()
    return Predictions(
        folder=job.folder,
        counts={"rows": 0, "scored": 0, "failed": 0},
        failed_by_code={},
        model=job.model.scored_with,
        complete=published.complete,
        seconds=0.0,
        files=published.files,
        streams=published.streams,
    )


def _sum_of_batches(first: Predictions, second: Predictions) -> Predictions:
    """Add up two batches of a stream. `second` already has the files of the first."""
    return replace(
        second,
        counts={name: first.counts.get(name, 0) + count for name, count in second.counts.items()},
        failed_by_code=dict(Counter(first.failed_by_code) + Counter(second.failed_by_code)),
        left_out=dict(Counter(first.left_out) + Counter(second.left_out)),
        complete=first.complete and second.complete,
        seconds=first.seconds + second.seconds,
        drift=None if first.counts["rows"] else second.drift,
    )


def _score_and_publish(
    job: _ScoringJob, source: ScoreInput, earlier: EarlierPredictions | None, batch: StreamBatch | None = None
) -> Predictions:
    """Score images in an MLflow run, and publish the predictions, together with `earlier` if they are added to it.

    `batch` says which batch of a stream the images are. Raises IncompleteError, after publishing, if too many failed.
    """
    folder, settings, model = job.folder, job.settings, job.model.scored_with
    plan = ScorePlan(
        folder=folder,
        run_id=new_run_id(),
        model=model,
        scored_at=datetime.now(timezone.utc),
        raw_shape=source.raw_shape,
        settings=settings.score,
        before=_rows_to_skip(job, earlier, batch),
    )
    with (
        writing_run(folder, contract.COMMIT, plan.run_id),
        model_run(
            job.store,
            settings.tracking.experiment,
            f"score with {model}",
            flatten(settings),
            model.as_dict(),
            (source.uri, source.digest),
            "scoring",
        ) as tracker,
    ):
        try:
            scored = replace(_score_in_tasks(job, source, plan), mlflow_run=tracker.run_id)
            published = scored if earlier is None else _added_to(earlier, scored, batch)
            publish_predictions(published, settings.model_dump(mode="json"), earlier)
        except BaseException:
            remove_unpublished(folder, contract.COMMIT, plan.run_id)
            raise
        tracker.log_scoring(published)
        if not scored.complete:
            raise IncompleteError(_why_incomplete(scored, settings.score.max_failed_fraction), published)
    return published


def _rows_to_skip(
    job: _ScoringJob, earlier: EarlierPredictions | None, batch: StreamBatch | None
) -> ScoredBefore | None:
    """Return the published rows whose images are not scored again, or None if all images are scored.

    A stream takes each file once. So it looks at rows only if others have added some too, or if `rescore` is set.
    """
    if earlier is None:
        return None
    rescore = job.settings.score.rescore
    all_rows_are_of_this_stream = batch is not None and (not earlier.files or set(earlier.streams) == {batch.stream})
    if all_rows_are_of_this_stream and not rescore:
        return None
    paths = tuple(file.path for file in earlier.files)
    return ScoredBefore(job.folder.uri, paths, job.model.card.model_sha256 if rescore else None)


def _score_in_tasks(job: _ScoringJob, source: ScoreInput, plan: ScorePlan) -> Predictions:
    """Let Spark tasks score and write the images, and count the rows."""
    if source.left_out:
        job.progress.say(f"left out: {in_words(source.left_out)}")
    archive = ship_model(job.spark, job.model.folder)

    def score_in_task(batches: Iterable[pa.RecordBatch], task: int, attempt: int) -> WrittenPredictions:
        return score_images(plan, worker_classifier(archive), batches, task, attempt)

    start = time.monotonic()
    written = source.images.map(score_in_task, job.progress, f"score {source.rows:,} images", source.rows)
    return _count_rows(job, source, plan, written, time.monotonic() - start)


def _count_rows(
    job: _ScoringJob, source: ScoreInput, plan: ScorePlan, written: Sequence[WrittenPredictions], seconds: float
) -> Predictions:
    """Add up the results of all tasks. Raises ModelError if the tasks did not return every row of the input."""
    rows = sum(task.rows for task in written)
    skipped = sum(task.skipped for task in written)
    failed = sum((task.failed for task in written), Counter[str]())
    if rows + skipped != source.rows:
        raise ModelError(
            f"the input has {source.rows} rows, but the tasks read {rows + skipped}, and nothing was published; "
            "run this again, and do not change the input while it runs"
        )
    counts = {"rows": source.rows, "scored": rows - failed.total(), "failed": failed.total()}
    files = (task.file for task in written if task.file is not None)
    return Predictions(
        folder=job.folder,
        counts=counts if plan.before is None else counts | {"skipped": skipped},
        failed_by_code=dict(failed.most_common()),
        model=plan.model,
        complete=failed.total() <= plan.settings.max_failed_fraction * rows,
        seconds=seconds,
        files=tuple(sorted(files, key=lambda file: file.path)),
        columns=tuple(contract.schema_of(plan.settings).names),
        left_out=dict(source.left_out.most_common()),
        failed_examples=tuple(chain.from_iterable(task.examples for task in written))[:EXAMPLES],
        drift=drift_of(
            job.model.card,
            sum((task.labels for task in written), Counter[int]()),
            sum((task.confidences for task in written), Counter[int]()),
        ),
    )


def _added_to(earlier: EarlierPredictions, scored: Predictions, batch: StreamBatch | None) -> Predictions:
    """Return the set that has the rows of `earlier` and the new ones."""
    return replace(
        scored,
        files=earlier.files + scored.files,
        streams=earlier.streams | ({batch.stream: batch.number} if batch else {}),
        # A set that lacks predictions stays incomplete, even if all new rows have theirs.
        complete=scored.complete and earlier.complete,
    )


def _why_incomplete(predictions: Predictions, max_failed: float) -> str:
    by_code = ", ".join(f"{count} {code}" for code, count in predictions.failed_by_code.items())
    failed = predictions.counts["failed"]
    return (
        f"{failed} of {predictions.counts['scored'] + failed} rows have no prediction ({by_code}), more than "
        f"score.max_failed_fraction={max_failed} allows; the predictions of the others are in {predictions.path}, "
        "marked as incomplete"
    )
