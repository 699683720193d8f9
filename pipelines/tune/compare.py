"""One training with several values of a setting and several seeds: a nested MLflow run each, curves and a table."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import keras
from pyspark.sql import SparkSession

from cnnlib.config import CompareSettings, TrainSettings
from cnnlib.errors import DivergenceError
from cnnlib.image_set.contract import ImageSet, open_image_set
from cnnlib.reports.curves import comparison_figure
from cnnlib.training.buildable import check_buildable
from cnnlib.training.callbacks import EPOCH_SECONDS
from cnnlib.training.checkpoints import History, TrainingState
from cnnlib.training.fit import fit_model
from cnnlib.tuning.comparison import Attempt, Comparison, Contender, as_csv
from pipelines.spark.progress import Advance, Progress
from pipelines.tracking.runs import NestedRun, end_lost_runs, nested_run, nested_runs, read_history, tracked_run
from pipelines.tracking.starting_weights import fetched_once, starting_weights, with_pinned_weights
from pipelines.tracking.store import connect
from pipelines.tracking.tracker import Tracker
from pipelines.train.flow import described_settings
from pipelines.train.workers.train_on_workers import check_workers, fit_on_workers
from pipelines.tune.results import described_search, keep_results, make_results_folder

FIGURE = "curves.png"
TABLE = "comparison.csv"

OnStep = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Compared:
    """A comparison, its MLflow run's id and page, and the folder with figure and table."""

    comparison: Comparison
    run_id: str
    run_url: str
    folder: Path


@dataclass(frozen=True)
class _Planned:
    """A training that is to be: `value` is its text."""

    value: str
    seed: int
    settings: TrainSettings

    @property
    def name(self) -> str:
        return f"{self.value}, seed {self.seed}"


def compare(spark: SparkSession, settings: CompareSettings, progress: Progress | None = None) -> Compared:
    """Train with every value and seed, each in a run nested in one of the comparison; nothing is registered.

    Every value is validated, and its model built, before anything is trained. Where `compare.resume` goes on with a
    comparison, its finished trainings stay. Raises ImageSetError, ConfigError, HostError and TrackingError before
    training starts, FeedError and TrainingError after.
    """
    progress = progress or Progress()
    image_set = open_image_set(settings.data.path)
    planned = [
        _Planned(value, seed, settings.training(value, seed))
        for value in settings.compare.values
        for seed in settings.seeds
    ]
    for one in planned[:: len(settings.seeds)]:
        check_buildable(image_set, one.settings, f"{settings.compare.setting}={one.value}")
    folder = make_results_folder(settings.output.path)
    uri = connect(settings.tracking)
    planned = [replace(one, settings=with_pinned_weights(one.settings)) for one in planned]
    with fetched_once() as weights_of:
        for one in planned[:: len(settings.seeds)]:
            if one.settings.model.weights:
                given = f"{settings.compare.setting}={one.value}"
                check_buildable(image_set, one.settings, given, weights_of(one.settings))
    for one in planned:
        if one.settings.train.workers:
            check_workers(spark, one.settings, uri)
    name = f"compare {settings.compare.setting} on {image_set.name}"
    described = described_search(settings, "compare", uri)
    resume = settings.compare.resume
    with tracked_run(uri, settings.tracking.experiment, name, resume, described, image_set, job="compare") as parent:
        trainings = _Trainings(spark, image_set, settings, parent, progress)
        comparison = _comparison(settings, trainings.attempts(planned))
        files = {FIGURE: comparison_figure(comparison), TABLE: as_csv(comparison.rows()).encode()}
        keep_results(files, parent, folder)
        return Compared(comparison, parent.run_id, parent.run_url, folder)


@dataclass(frozen=True)
class _Trainings:
    """All trainings of one comparison, each in a run nested in `run`."""

    spark: SparkSession
    image_set: ImageSet
    settings: CompareSettings
    run: Tracker
    progress: Progress

    def attempts(self, planned: list[_Planned]) -> dict[str, list[Attempt]]:
        """Train all that is planned and not finished yet. Gives the trainings of each value."""
        end_lost_runs(self.run)
        finished = [run for run in nested_runs(self.run) if run.status == "FINISHED"]
        attempts: dict[str, list[Attempt]] = {value: [] for value in self.settings.compare.values}
        with _shown(self.settings, self.image_set, planned, self.progress) as shown:
            for number, one in enumerate(planned, start=1):
                described = described_settings(one.settings, self.run.uri)
                same = (run for run in finished if not run.logged.differences(described, self.image_set.fingerprint))
                earlier = next(same, None)
                attempt = self._earlier(one, earlier) if earlier else self._train(one, described, shown(number, one))
                attempts[one.value].append(attempt)
                self._say(one, attempt, f"{number}/{len(planned)}", earlier is not None)
        return attempts

    def _earlier(self, one: _Planned, run: NestedRun) -> Attempt:
        return _attempt(one, run.run_id, read_history(self.run.uri, run.run_id, _metrics(one.settings)))

    def _train(self, one: _Planned, described: dict[str, object], on_step: OnStep) -> Attempt:
        try:
            with nested_run(self.run, one.name, described, self.image_set) as tracker:
                run_id = tracker.run_id
                history = _trained(self.spark, self.image_set, one.settings, tracker, self.progress, on_step)
        except DivergenceError as error:
            # That a value does so is a result too: its run is failed, the others go on.
            self.progress.say(f"{self.settings.compare.setting}={one.name}: {error.message}")
            history = dict.fromkeys(_metrics(one.settings), [math.nan]) | {EPOCH_SECONDS: [0.0]}
        return _attempt(one, run_id, history)

    def _say(self, one: _Planned, attempt: Attempt, number: str, earlier: bool) -> None:
        """Tell a finished training in a line."""
        metric, direction = self.settings.train.monitor, self.settings.train.best_direction
        best = Contender(one.value, (attempt,)).best(metric, direction)
        when = "finished before" if earlier else f"{attempt.seconds:.1f} s"
        self.progress.say(f"{number} {self.settings.compare.setting}={one.name}: best {metric} {best}, {when}")


def _attempt(one: _Planned, run_id: str, history: History) -> Attempt:
    return Attempt(one.seed, run_id, sum(history[EPOCH_SECONDS]), history)


def _metrics(settings: TrainSettings) -> tuple[str, ...]:
    """What a comparison keeps of a training's epochs."""
    return settings.train.monitor, "loss", EPOCH_SECONDS


@contextmanager
def _shown(
    settings: CompareSettings, image_set: ImageSet, planned: list[_Planned], progress: Progress
) -> Iterator[Callable[[int, _Planned], OnStep]]:
    """One live line for all trainings in the driver; trainings on workers have a line of their own each."""
    if any(one.settings.train.workers for one in planned):
        yield lambda number, one: lambda done, total, note: None
        return
    title = f"compare {settings.compare.setting} on {image_set.name}"
    with progress.step(title) as advance:

        def shown(number: int, one: _Planned) -> OnStep:
            return _Line(advance, number, len(planned), one.name).step

        yield shown


@dataclass(frozen=True)
class _Line:
    """The live line during one training."""

    advance: Advance
    number: int
    trainings: int
    name: str

    def step(self, done: int, total: int, note: str) -> None:
        self.advance(self.number - 1, self.trainings, f"trainings; {self.name}: {done:,}/{total:,} {note}")


def _trained(
    spark: SparkSession,
    image_set: ImageSet,
    settings: TrainSettings,
    tracker: Tracker,
    progress: Progress,
    on_step: OnStep,
) -> History:
    """Train once, log every epoch, and give the history.

    In the driver no checkpoint is written: a training of a comparison that was interrupted is trained anew.
    """
    if settings.train.workers:
        fit_on_workers(spark, image_set, settings, tracker, progress)
        return read_history(tracker.uri, tracker.run_id, _metrics(settings))

    def on_epoch(model: keras.Model, state: TrainingState) -> None:
        tracker.log_epoch(state.epoch, state.logs(state.epoch))

    try:
        with starting_weights(settings) as weights:
            _, history = fit_model(image_set, settings, on_epoch=on_epoch, on_step=on_step, weights=weights)
    finally:
        # Keras keeps a graph of every model; after dozens of trainings that is memory and time.
        keras.backend.clear_session()
    return history


def _comparison(settings: CompareSettings, attempts: dict[str, list[Attempt]]) -> Comparison:
    contenders = tuple(Contender(value, tuple(its)) for value, its in attempts.items())
    return Comparison(settings.compare.setting, settings.train.monitor, settings.train.best_direction, contenders)
