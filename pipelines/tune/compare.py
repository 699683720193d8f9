"""Train with several values of a setting, and with several seeds each: nested MLflow runs, curves and a table."""

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
from cnnlib.training.callbacks import EPOCH_SECONDS
from cnnlib.training.checkpoints import History, TrainingState
from cnnlib.training.compiled_model import check_buildable
from cnnlib.training.fit import fit_model
from cnnlib.tuning.comparison import Attempt, Comparison, Contender, as_csv
from pipelines.spark.progress import Progress
from pipelines.tracking.runs import NestedRun, end_lost_runs, nested_run, nested_runs, read_history, tracked_run
from pipelines.tracking.starting_weights import fetched_once, starting_weights, with_pinned_weights
from pipelines.tracking.store import connect
from pipelines.tracking.tracker import Tracker
from pipelines.train.flow import described_settings
from pipelines.train.workers.train_on_workers import check_workers, fit_on_workers
from pipelines.tune.results import keep_results, logged_settings, make_results_folder

FIGURE = "curves.png"
TABLE = "comparison.csv"

OnStep = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Compared:
    """A comparison, the id and the URL of its MLflow run, and the folder with the figure and the table."""

    comparison: Comparison
    run_id: str
    run_url: str
    folder: Path


@dataclass(frozen=True)
class _Training:
    """One training of the comparison: a value of the setting, as text, and a seed."""

    value: str
    seed: int
    settings: TrainSettings

    @property
    def name(self) -> str:
        return f"{self.value}, seed {self.seed}"


def compare(spark: SparkSession, settings: CompareSettings, progress: Progress | None = None) -> Compared:
    """Train with every value and every seed. Each training is a run nested in the comparison's. Registers no model.

    The model of every value is built before anything is trained. `compare.resume` continues a comparison: its finished
    trainings stay. Raises ImageSetError, ConfigError, HostError and TrackingError before training starts, FeedError and
    TrainingError afterwards.

    Example:

        settings = CompareSettings(data={"path": "sets/digits"}, compare={"over": "optimizer.name=sgd,adam"})
        compared = compare(spark, settings)
        print(compared.comparison.ranking[0].value)
    """
    progress = progress or Progress()
    image_set = open_image_set(settings.data.path)
    trainings = [
        _Training(value, seed, settings.training(value, seed))
        for value in settings.compare.values
        for seed in settings.seeds
    ]
    _check_models(image_set, settings, trainings)
    folder = make_results_folder(settings.output.path)
    uri = connect(settings.tracking)
    trainings = [replace(training, settings=with_pinned_weights(training.settings)) for training in trainings]
    _check_weights(image_set, settings, trainings)
    for training in trainings:
        if training.settings.train.workers:
            check_workers(spark, training.settings, uri)
    name = f"compare {settings.compare.setting} on {image_set.name}"
    logged = logged_settings(settings, uri)
    resume = settings.compare.resume
    with tracked_run(uri, settings.tracking.experiment, name, resume, logged, image_set, job="compare") as run:
        attempts = _Trainer(spark, image_set, settings, run, progress).train_all(trainings)
        comparison = _comparison(settings, attempts)
        files = {FIGURE: comparison_figure(comparison), TABLE: as_csv(comparison.rows()).encode()}
        keep_results(files, run, folder)
        return Compared(comparison, run.run_id, run.run_url, folder)


def _check_models(image_set: ImageSet, settings: CompareSettings, trainings: list[_Training]) -> None:
    """Raise ConfigError for a value with which no model can be built."""
    for training in _one_per_value(settings, trainings):
        check_buildable(image_set, training.settings, f"{settings.compare.setting}={training.value}")


def _check_weights(image_set: ImageSet, settings: CompareSettings, trainings: list[_Training]) -> None:
    """Raise ConfigError for a value whose model cannot take `model.weights`. Needs a connected store."""
    with fetched_once() as weights_of:
        for training in _one_per_value(settings, trainings):
            if training.settings.model.weights:
                given = f"{settings.compare.setting}={training.value}"
                check_buildable(image_set, training.settings, given, weights_of(training.settings))


def _one_per_value(settings: CompareSettings, trainings: list[_Training]) -> list[_Training]:
    """Return the first training of each value: its other seeds build the same model."""
    return trainings[:: len(settings.seeds)]


@dataclass(frozen=True)
class _Trainer:
    """Runs the trainings of one comparison, each in a run nested in `run`."""

    spark: SparkSession
    image_set: ImageSet
    settings: CompareSettings
    run: Tracker
    progress: Progress

    def train_all(self, trainings: list[_Training]) -> dict[str, list[Attempt]]:
        """Run every training that has not finished before. Return the attempts of each value."""
        end_lost_runs(self.run)
        finished = [run for run in nested_runs(self.run) if run.status == "FINISHED"]
        attempts: dict[str, list[Attempt]] = {value: [] for value in self.settings.compare.values}
        with self._live_line(trainings) as on_step_of:
            for number, training in enumerate(trainings, start=1):
                logged = described_settings(training.settings, self.run.uri)
                same = (run for run in finished if not run.logged.differences(logged, self.image_set.fingerprint))
                earlier = next(same, None)
                if earlier is not None:
                    attempt = self._read(training, earlier)
                else:
                    attempt = self._train(training, logged, on_step_of(number, training))
                attempts[training.value].append(attempt)
                self._report(training, attempt, f"{number}/{len(trainings)}", earlier is not None)
        return attempts

    def _read(self, training: _Training, run: NestedRun) -> Attempt:
        """Read a training that has finished before."""
        return _attempt(training, run.run_id, read_history(self.run.uri, run.run_id, _metrics(training.settings)))

    def _train(self, training: _Training, logged: dict[str, object], on_step: OnStep) -> Attempt:
        try:
            with nested_run(self.run, training.name, logged, self.image_set) as tracker:
                run_id = tracker.run_id
                history = self._fit(training.settings, tracker, on_step)
        except DivergenceError as error:
            # Divergence is a result of the comparison too. The run of this training fails, and the others continue.
            self.progress.say(f"{self.settings.compare.setting}={training.name}: {error.message}")
            history = dict.fromkeys(_metrics(training.settings), [math.nan]) | {EPOCH_SECONDS: [0.0]}
        return _attempt(training, run_id, history)

    def _fit(self, settings: TrainSettings, tracker: Tracker, on_step: OnStep) -> History:
        """Train once, log every epoch, and return the history.

        A training in the driver writes no checkpoint. If it is interrupted, `compare.resume` trains it again from the
        start.
        """
        if settings.train.workers:
            fit_on_workers(self.spark, self.image_set, settings, tracker, self.progress)
            return read_history(tracker.uri, tracker.run_id, _metrics(settings))

        def on_epoch(model: keras.Model, state: TrainingState) -> None:
            tracker.log_epoch(state.epoch, state.logs(state.epoch))

        try:
            with starting_weights(settings) as weights:
                _, history = fit_model(self.image_set, settings, on_epoch=on_epoch, on_step=on_step, weights=weights)
        finally:
            # Keras keeps the graph of every model, which costs memory and time after dozens of trainings.
            keras.backend.clear_session()
        return history

    @contextmanager
    def _live_line(self, trainings: list[_Training]) -> Iterator[Callable[[int, _Training], OnStep]]:
        """Show one live line for all trainings in the driver. Yields a function that makes a training's `on_step`.

        A training on workers shows a line of its own, so then this shows none.
        """
        if any(training.settings.train.workers for training in trainings):
            yield lambda number, training: lambda done, total, note: None
            return
        with self.progress.step(f"compare {self.settings.compare.setting} on {self.image_set.name}") as advance:

            def on_step_of(number: int, training: _Training) -> OnStep:
                def on_step(done: int, total: int, note: str) -> None:
                    advance(number - 1, len(trainings), f"trainings; {training.name}: {done:,}/{total:,} {note}")

                return on_step

            yield on_step_of

    def _report(self, training: _Training, attempt: Attempt, number: str, earlier: bool) -> None:
        """Print one line for a finished training."""
        metric, direction = self.settings.train.monitor, self.settings.train.best_direction
        best = Contender(training.value, (attempt,)).best(metric, direction)
        when = "finished before" if earlier else f"{attempt.seconds:.1f} s"
        self.progress.say(f"{number} {self.settings.compare.setting}={training.name}: best {metric} {best}, {when}")


def _attempt(training: _Training, run_id: str, history: History) -> Attempt:
    return Attempt(training.seed, run_id, sum(history[EPOCH_SECONDS]), history)


def _metrics(settings: TrainSettings) -> tuple[str, ...]:
    """Return the names of the metrics that a comparison keeps of each epoch."""
    return settings.train.monitor, "loss", EPOCH_SECONDS


def _comparison(settings: CompareSettings, attempts: dict[str, list[Attempt]]) -> Comparison:
    contenders = tuple(Contender(value, tuple(its)) for value, its in attempts.items())
    return Comparison(settings.compare.setting, settings.train.monitor, settings.train.best_direction, contenders)
