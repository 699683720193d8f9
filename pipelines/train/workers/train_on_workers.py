"""Training on Spark's workers: check them, launch the ranks, show their progress, and restart after a loss."""

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
from pipelines.tracking.tracker import PROGRESS, Tracker
from pipelines.train.workers.launch import DONE, LOST, REFUSED, LaunchPlan, RankOutcome, launch

SECONDS_BETWEEN_LOOKS = 1.0
# Spark replaces a lost executor. If we started the job before, Spark would wait up to ten minutes for it.
SECONDS_FOR_NEW_EXECUTORS = 60.0
# Spark's error class for more barrier tasks than slots, if it could not say before how many slots there are.
TOO_FEW_SLOTS = "SPARK-24819"


def check_workers(spark: SparkSession, settings: TrainSettings, tracking_uri: str) -> None:
    """Raise HostError or TrackingError if the workers of the settings cannot train."""
    problem = workers_problem(spark, settings.train)
    if problem:
        raise HostError(problem)
    problem = store_problem(spark, tracking_uri)
    if problem:
        raise TrackingError(problem)


def fit_on_workers(
    spark: SparkSession, image_set: ImageSet, settings: TrainSettings, tracker: Tracker, progress: Progress
) -> None:
    """Train on `train.workers` ranks, and publish every epoch in the run.

    Raises the SparkcnnError that a rank ended with, and TrainingError after more than `train.max_restarts` losses of
    ranks.
    """
    # An absolute path, because each rank has its own working folder.
    data = settings.data.model_copy(update={"path": image_set.folder.uri})
    settings = settings.model_copy(update={"data": data})
    plan = LaunchPlan(
        module="pipelines.train.workers.rank",
        workers=settings.train.workers,
        gpus_per_worker=settings.train.gpus_per_worker,
        spec={"settings": settings.model_dump(mode="json"), "tracker": vars(tracker)},
        environment=environment_for_ranks(),
        ports=settings.train.port_range,
        # On one machine, an executor's log is the user's terminal, which shows the last lines of a failure anyway.
        echo=not runs_here(spark),
    )
    title = f"train {settings.model.name} on {settings.train.workers} workers"
    with watched_step(progress, title, _RankZeroProgress(tracker, progress).look, SECONDS_BETWEEN_LOOKS):
        for restart in itertools.count(1):
            tracker.set_tag(PROGRESS, value="{}")
            with _with_resume_advice(tracker):
                outcomes = launch_once(spark, plan)
            failed = _first_failed(outcomes)
            if failed is None:
                _check_equal(outcomes)
                return
            failure = _failure(failed)
            if restart > settings.train.max_restarts:
                raise TrainingError(
                    f"{failure}, and train.max_restarts={settings.train.max_restarts} is used up; look into it, then "
                    f"go on with --train.resume {tracker.run_id}",
                    failed.last_lines,
                )
            slots = slots_within(SECONDS_FOR_NEW_EXECUTORS, spark, plan.workers)
            if slots is not None and slots < plan.workers:
                raise TrainingError(
                    f"{failure}, and Spark can now run only {slots} of the train.workers={plan.workers} tasks at once; "
                    f"when it has its executors back, go on with --train.resume {tracker.run_id}",
                    failed.last_lines,
                )
            progress.say(
                f"{failure}: going on after epoch {tracker.latest_epoch()} "
                f"(restart {restart} of {settings.train.max_restarts})"
            )


def _failure(failed: RankOutcome) -> str:
    """Describe the failure. Raises the error of a rank that refused, because a restart would not help."""
    if failed.outcome == REFUSED:
        kind = getattr(errors, failed.result.get("refused", "HostError"))
        raise kind(failed.result.get("message", failed.message), failed.result.get("quoted", ()))
    return f"rank {failed.rank} on {failed.host} {failed.message}" if failed.host else failed.message


@contextmanager
def _with_resume_advice(tracker: Tracker) -> Iterator[None]:
    """Add to a HostError of the body how to resume, if the run already has epochs."""
    try:
        yield
    except HostError as error:
        if not tracker.latest_epoch():
            raise
        raise HostError(f"{error.message}; then go on with --train.resume {tracker.run_id}", error.quoted) from error


def launch_once(spark: SparkSession, plan: LaunchPlan) -> list[RankOutcome]:
    """Launch the ranks of a plan. If Spark loses a task, return a single outcome, LOST."""
    try:
        return launch(spark, plan)
    except (PySparkException, Py4JJavaError) as error:
        if TOO_FEW_SLOTS in str(error):
            raise HostError(
                f"train.workers={plan.workers} exceeds the tasks that this Spark can run at once; lower it, or give "
                "Spark more executors or cores"
            ) from error
        # Spark cancelled the job, because an executor or a Python worker was lost.
        return [RankOutcome(-1, LOST, f"Spark lost the training's tasks ({_cause(error)})")]


def _first_failed(outcomes: list[RankOutcome]) -> RankOutcome | None:
    """Return the outcome of the rank that failed first, or None if all are done."""
    failed = [outcome for outcome in outcomes if outcome.outcome != DONE]
    return min(failed, key=lambda outcome: not outcome.first, default=None)


def _check_equal(outcomes: list[RankOutcome]) -> None:
    """Raise TrainingError if the ranks ended with different weights."""
    digests = {outcome.result["weights_sha256"] for outcome in outcomes}
    if len(digests) != 1:
        raise TrainingError(f"the ranks ended with {len(digests)} different sets of weights; report this fault")


class _RankZeroProgress:
    """Show the progress of rank 0, as the MLflow run has it."""

    def __init__(self, tracker: Tracker, progress: Progress) -> None:
        self._tracker = tracker
        self._progress = progress
        self._lines_shown = 0

    def look(self, advance: Advance) -> bool:
        found = self._tracker.progress()
        if found is None:
            return True  # the store is away; the ranks wait for it, and this is only for show
        new = found.get("said", 0) - self._lines_shown
        for line in found.get("lines", ())[-new:] if new > 0 else ():
            self._progress.say(line)
        # Restarted ranks count their lines from 0 again.
        self._lines_shown = found.get("said", 0)
        if "done" in found:
            advance(found["done"], found["total"], found["note"])
        return True


def _cause(error: BaseException) -> str:
    """Return the most informative line of Spark's error: about a lost executor, or of the innermost exception."""
    text = str(error)
    lines = re.findall(r"^ExecutorLostFailure.+$", text, re.MULTILINE)
    lines = lines or re.findall(r"^(?:: |Caused by: )?[\w.$]+(?:Exception|Error): (.+)$", text, re.MULTILINE)
    return lines[-1] if lines else first_line(error)
