"""Training on Spark's workers: checked, launched, shown, and begun again from the last checkpoint when one is lost."""

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from cnnlib import errors
from cnnlib.config import TrainSettings
from cnnlib.errors import HostError, TrackingError, TrainingError, first_line
from cnnlib.image_set.contract import ImageSet
from pipelines.spark.cluster import environment_for_ranks, runs_here, slots_within, store_problem, workers_problem
from pipelines.spark.progress import Advance, Progress, watched_step
from pipelines.tracking.tracker import PROGRESS_TAG, Tracker
from pipelines.train.workers.launch import DONE, LOST, REFUSED, LaunchPlan, RankOutcome, launch

SECONDS_BETWEEN_LOOKS = 1.0
# Spark replaces an executor that it has lost; by itself it would wait ten minutes for that.
SECONDS_FOR_NEW_EXECUTORS = 60.0
# What Spark calls it, where it did not tell beforehand how many tasks it can run.
TOO_FEW_SLOTS = "SPARK-24819"


def check_workers(spark: SparkSession, settings: TrainSettings, tracking_uri: str) -> None:
    """Raise HostError or TrackingError where the workers of the settings cannot train."""
    problem = workers_problem(spark, settings.train)
    if problem:
        raise HostError(problem)
    problem = store_problem(spark, tracking_uri)
    if problem:
        raise TrackingError(problem)


def fit_on_workers(
    spark: SparkSession, image_set: ImageSet, settings: TrainSettings, tracker: Tracker, progress: Progress
) -> None:
    """Train on `train.workers` ranks; every epoch goes to the run.

    Raises the SparkcnnError that a rank ended with, and TrainingError when ranks were lost more than
    `train.max_restarts` times.
    """
    # Ranks have working folders of their own.
    data = settings.data.model_copy(update={"path": image_set.folder.uri})
    settings = settings.model_copy(update={"data": data})
    plan = LaunchPlan(
        module="pipelines.train.workers.rank",
        workers=settings.train.workers,
        gpus_per_worker=settings.train.gpus_per_worker,
        spec={"settings": settings.model_dump(mode="json"), "tracker": vars(tracker)},
        environment=environment_for_ranks(),
        ports=settings.train.port_range,
        # On one machine an executor's log is the user's terminal; the last lines of a failure come there anyway.
        echo=not runs_here(spark),
    )
    title = f"train {settings.model.name} on {settings.train.workers} workers"
    with watched_step(progress, title, _RankZero(tracker, progress).look, SECONDS_BETWEEN_LOOKS):
        for restart in itertools.count(1):
            tracker.set_tag(PROGRESS_TAG, "{}")
            with _way_on_told(tracker):
                outcomes = _launched(spark, plan)
            failed = _first_failed(outcomes)
            if failed is None:
                _check_equal(outcomes)
                return
            told = _failure(failed)
            if restart > settings.train.max_restarts:
                raise TrainingError(
                    f"{told}, and train.max_restarts={settings.train.max_restarts} is used up; look into it, then go "
                    f"on with --train.resume {tracker.run_id}",
                    failed.last_lines,
                )
            slots = slots_within(SECONDS_FOR_NEW_EXECUTORS, spark, plan.workers)
            if slots is not None and slots < plan.workers:
                raise TrainingError(
                    f"{told}, and Spark can now run {slots} tasks at once where train.workers={plan.workers} are "
                    f"needed; when it has its executors back, go on with --train.resume {tracker.run_id}",
                    failed.last_lines,
                )
            progress.say(
                f"{told}: going on after epoch {tracker.latest_epoch()} "
                f"(restart {restart} of {settings.train.max_restarts})"
            )


def _failure(failed: RankOutcome) -> str:
    """What failed, in words. Raises the error of a rank that refused: trying again would not help."""
    if failed.outcome == REFUSED:
        kind = getattr(errors, failed.result.get("refused", "HostError"))
        raise kind(failed.result.get("message", failed.message), failed.result.get("quoted", ()))
    return f"rank {failed.rank} on {failed.host} {failed.message}" if failed.host else failed.message


@contextmanager
def _way_on_told(tracker: Tracker) -> Iterator[None]:
    """Where Spark lacks something, say how a training that has epochs behind it goes on when it has it."""
    try:
        yield
    except HostError as error:
        if not tracker.latest_epoch():
            raise
        raise HostError(f"{error.message}; then go on with --train.resume {tracker.run_id}", error.quoted) from error


def _launched(spark: SparkSession, plan: LaunchPlan) -> list[RankOutcome]:
    try:
        return launch(spark, plan)
    except (PySparkException, Py4JJavaError) as error:
        if TOO_FEW_SLOTS in str(error):
            raise HostError(
                f"train.workers={plan.workers} exceeds the tasks that this Spark can run at once; lower it, or give "
                "Spark more executors or cores"
            ) from error
        # Spark gave the job up: an executor or a Python worker was lost.
        return [RankOutcome(-1, LOST, f"Spark lost the training's tasks ({_cause(error)})")]


def _first_failed(outcomes: list[RankOutcome]) -> RankOutcome | None:
    failed = [outcome for outcome in outcomes if outcome.outcome != DONE]
    return min(failed, key=lambda outcome: not outcome.first, default=None)


def _check_equal(outcomes: list[RankOutcome]) -> None:
    digests = {outcome.result["weights_sha256"] for outcome in outcomes}
    if len(digests) != 1:
        raise TrainingError(f"the ranks ended with {len(digests)} different sets of weights; report this fault")


class _RankZero:
    """Shows rank 0's progress, as it stands in the run."""

    def __init__(self, tracker: Tracker, progress: Progress) -> None:
        self._tracker = tracker
        self._progress = progress
        self._said = 0

    def look(self, advance: Advance) -> bool:
        told = self._tracker.progress()
        if told is None:
            return True  # the store is away; the ranks wait for it, and this is only for show
        new = told.get("said", 0) - self._said
        for line in told.get("lines", ())[-new:] if new > 0 else ():
            self._progress.say(line)
        # Ranks that were started again begin to count anew.
        self._said = told.get("said", 0)
        if "done" in told:
            advance(told["done"], told["total"], told["note"])
        return True


def _cause(error: BaseException) -> str:
    """What Spark's text says that says most: of a lost executor, or in its innermost exception."""
    text = str(error)
    said = re.findall(r"^ExecutorLostFailure.+$", text, re.MULTILINE)
    said = said or re.findall(r"^(?:: |Caused by: )?[\w.$]+(?:Exception|Error): (.+)$", text, re.MULTILINE)
    return said[-1] if said else first_line(error)
