"""Training on Spark's workers: checked, launched, shown, and begun again from the last checkpoint when one is lost."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from cnnlib import errors
from cnnlib.config import TrainSettings
from cnnlib.errors import HostError, TrackingError, TrainingError, first_line
from pipelines.cluster import environment_for_ranks, runs_here, store_problem, workers_problem
from pipelines.launch import DONE, LOST, REFUSED, LaunchPlan, RankOutcome, launch
from pipelines.progress import Advance, Progress
from pipelines.tracking import PROGRESS_TAG, STARTS_TAG, Tracker

SECONDS_BETWEEN_LOOKS = 1.0


def check_workers(spark: SparkSession, settings: TrainSettings, tracking_uri: str) -> None:
    """Raise HostError or TrackingError where the workers of the settings cannot train."""
    problem = workers_problem(spark, settings.train)
    if problem:
        raise HostError(problem)
    problem = store_problem(spark, tracking_uri)
    if problem:
        raise TrackingError(problem)


def fit_on_workers(spark: SparkSession, settings: TrainSettings, tracker: Tracker, progress: Progress) -> None:
    """Train on `train.workers` ranks; every epoch goes to the run. `data.path` must be absolute.

    Raises the SparkcnnError that a rank ended with, and TrainingError when ranks were lost more than
    `train.max_restarts` times.
    """
    plan = LaunchPlan(
        module="pipelines.rank",
        workers=settings.train.workers,
        gpus_per_worker=settings.train.gpus_per_worker,
        spec={"settings": settings.model_dump(mode="json"), "tracker": vars(tracker)},
        environment=environment_for_ranks(),
        ports=settings.train.port_range,
        # On one machine an executor's log is the user's terminal; the last lines of a failure come there anyway.
        echo=not runs_here(spark),
    )
    tracker.set_tag(STARTS_TAG, "0")
    for restarts in itertools.count():
        with _shown(tracker, progress, f"train {settings.model.name} on {settings.train.workers} workers"):
            outcomes = _launched(spark, plan)
        failed = _first_failed(outcomes)
        if failed is None:
            _check_equal(outcomes)
            return
        if failed.outcome == REFUSED:
            kind = getattr(errors, failed.result.get("refused", "HostError"))
            raise kind(failed.result.get("message", failed.message))
        text = f"rank {failed.rank} on {failed.host} {failed.message}" if failed.host else failed.message
        # Spark may have started the ranks again by itself.
        if max(restarts, int(tracker.tag(STARTS_TAG) or 0) - 1) >= settings.train.max_restarts:
            raise TrainingError(
                f"{text}, and train.max_restarts={settings.train.max_restarts} is used up; look into it, then go on "
                f"with --train.resume {tracker.run_id}",
                failed.last_lines,
            )
        progress.say(
            f"{text}: going on after epoch {tracker.latest_epoch()} "
            f"(restart {restarts + 1} of {settings.train.max_restarts})"
        )


def _launched(spark: SparkSession, plan: LaunchPlan) -> list[RankOutcome]:
    try:
        return launch(spark, plan)
    except (PySparkException, Py4JJavaError) as error:
        # Spark gave the job up: an executor or a Python worker was lost.
        return [RankOutcome(-1, LOST, f"Spark lost the training's tasks ({_cause(error)})")]


def _first_failed(outcomes: list[RankOutcome]) -> RankOutcome | None:
    failed = [outcome for outcome in outcomes if outcome.outcome != DONE]
    return min(failed, key=lambda outcome: not outcome.first, default=None)


def _check_equal(outcomes: list[RankOutcome]) -> None:
    digests = {outcome.result["weights_sha256"] for outcome in outcomes}
    if len(digests) != 1:
        raise TrainingError(f"the ranks ended with {len(digests)} different sets of weights; report this fault")


@contextmanager
def _shown(tracker: Tracker, progress: Progress, title: str) -> Iterator[None]:
    """Show rank 0's progress, as it stands in the run, while the body runs."""
    finished = threading.Event()

    def watch(advance: Advance) -> None:
        said = 0
        while True:
            over = finished.wait(SECONDS_BETWEEN_LOOKS)
            told = tracker.progress()
            new = told.get("said", 0) - said
            for line in told.get("lines", ())[-new:] if new > 0 else ():
                progress.say(line)
            said = max(said, told.get("said", 0))
            if "done" in told:
                advance(told["done"], told["total"], told["note"])
            if over:
                return

    tracker.set_tag(PROGRESS_TAG, "{}")
    with progress.step(title) as advance:
        watcher = threading.Thread(target=watch, args=(advance,), name="sparkcnn-progress", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            finished.set()
            watcher.join()


def _cause(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if "Exception" in line or "Error" in line]
    return lines[-1] if lines else first_line(error)
