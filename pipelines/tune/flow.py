"""Search for the best settings of a training: Optuna's trials run as Spark tasks, in one MLflow run.

The results are a table of the trials, the importance of each setting, and the best settings as a file for train.
"""

import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.sql import SparkSession

from cnnlib.config import Distribution, TrainSettings, TuneSettings
from cnnlib.errors import ConfigError, HostError, TrackingError, TrainingError
from cnnlib.image_set.contract import ImageSet, open_image_set
from cnnlib.reports.curves import importance_figure
from cnnlib.training.compiled_model import check_buildable
from cnnlib.tuning.comparison import as_csv
from cnnlib.tuning.trials import BEST, COMPLETE, FAILED, PRUNED, TrialOutcome, best_yaml, ranked, trial_rows
from pipelines.spark.cluster import environment_for_ranks, store_problem
from pipelines.spark.progress import Advance, Progress, watched_step
from pipelines.tracking.runs import LOST, NestedRun, end_lost_runs, nested_runs, tracked_run
from pipelines.tracking.starting_weights import fetched_once, pin_weights, with_pinned_weights
from pipelines.tracking.store import connect
from pipelines.tracking.tags import read_tag
from pipelines.tracking.tracker import Tracker
from pipelines.tune.objective import ERROR, Objective
from pipelines.tune.results import keep_results, logged_settings, make_results_folder

if TYPE_CHECKING:  # MLflow 2 has no study on Spark, so `pipelines.tune.study` does not import there.
    from pipelines.tune.study import SparkTrials

TABLE = "trials.csv"
FIGURE = "importance.png"
SECONDS_BETWEEN_LOOKS = 1.0
SPARK_STUDY = "mlflow.pyspark.optuna.study"
_STATES = {"FINISHED": COMPLETE, "KILLED": PRUNED, "FAILED": FAILED}


@dataclass(frozen=True)
class Tuned:
    """The result of a study.

    `trials` come best first. `importances` is the fraction of the variation of `metric` that each setting explains. It
    is empty if that is not known. `best` are the settings of the best trial. `folder` has the result files.
    """

    trials: list[TrialOutcome]
    importances: dict[str, float]
    best: TrainSettings
    metric: str
    run_id: str
    run_url: str
    folder: Path


def tune(spark: SparkSession, settings: TuneSettings, progress: Progress | None = None) -> Tuned:
    """Run the trials of a study as Spark tasks. Each is an MLflow run nested in the study's run. Registers no model.

    `tune.resume` continues a killed study: the finished trials stay, the others are tried again. Raises HostError if
    MLflow has no study on Spark. Raises ImageSetError, ConfigError and TrackingError before anything is trained, and
    TrainingError if no trial finishes.

    Example:

        settings = TuneSettings(
            data={"path": "sets/digits"},
            tune={"trials": 20, "space": {"optimizer.learning_rate": "loguniform(1e-4,1e-1)"}},
        )
        tuned = tune(spark, settings)
        print(tuned.trials[0].value, tuned.best.optimizer.learning_rate)
    """
    _check_available()
    from pipelines.tune.study import SparkTrials, create_study_run

    progress = progress or Progress()
    image_set = open_image_set(settings.data.path)
    _check_space(image_set, settings, settings.space, lambda varied: None)
    folder = make_results_folder(settings.output.path)
    uri = connect(settings.tracking)
    problem = store_problem(spark, uri)
    if problem:
        raise TrackingError(problem)
    settings = with_pinned_weights(settings)
    space = _pinned_space(settings)
    if settings.model.weights or "model.weights" in space:
        # Check again with the weights: registered models can only be downloaded from a connected store.
        with fetched_once() as weights_of:
            _check_space(image_set, settings, space, weights_of)
    # MLflow looks a study up by its name, and puts the name in quotes. So the name is unique and has no quote.
    name = f"tune {settings.model.name} on {image_set.name} {uuid.uuid4().hex[:8]}".replace("'", "")
    direction = settings.train.best_direction
    with tracked_run(
        uri,
        settings.tracking.experiment,
        name,
        settings.tune.resume,
        logged_settings(settings, uri),
        image_set,
        job="tune",
        create=lambda experiment_id, name: create_study_run(experiment_id, name, direction),
    ) as run:
        # A study that is continued has its earlier name.
        name = run.name() or name
        trials = SparkTrials(run, name, settings.tune.startup_trials, settings.tune.seed)
        _search(spark, image_set, settings, space, trials, progress)
        return _results(settings, run, trials, folder)


def _check_available() -> None:
    if find_spec("mlflow.pyspark.optuna") is None or find_spec(SPARK_STUDY) is None:
        raise HostError(
            f"tune needs MLflow's study on Spark ({SPARK_STUDY}), which MLflow {version('mlflow')} does not have; "
            "install MLflow 3, as the profile current does"
        )


def _pinned_space(settings: TuneSettings) -> dict[str, Distribution]:
    """Return the space with the values of `model.weights` pinned, as `with_pinned_weights` pins a single one."""
    space = settings.space
    weights = space.get("model.weights")
    if weights is not None:
        space["model.weights"] = replace(weights, values=tuple(map(pin_weights, weights.values)))
    return space


def _check_space(
    image_set: ImageSet,
    settings: TuneSettings,
    space: dict[str, Distribution],
    weights_of: Callable[[TrainSettings], str | None],
) -> None:
    """Raise ConfigError for a value of the space with which no model can be built."""

    def check(changes: dict[str, Any], given: str) -> None:
        varied = settings.varied(changes)
        check_buildable(image_set, varied, given, weights_of(varied))

    firsts = {name: distribution.values[0] for name, distribution in space.items()}
    for name, distribution in space.items():
        for value in distribution.values:
            try:
                check({name: value}, f"{name}={value}")
            except ConfigError:
                # The value may need another value of the space: beta_1 needs optimizer.name=adam, for example. So try
                # it with the first value of every other setting too.
                check(firsts | {name: value}, f"{name}={value}")


def _search(
    spark: SparkSession,
    image_set: ImageSet,
    settings: TuneSettings,
    space: dict[str, Distribution],
    trials: "SparkTrials",
    progress: Progress,
) -> None:
    """Run trials until the study has as many as `tune.trials`. A trial whose task was lost is tried again."""
    end_lost_runs(trials.run)
    # Tasks have their own working folders, so data.path must be absolute.
    data = settings.data.model_copy(update={"path": image_set.folder.uri})
    base = settings.model_copy(update={"data": data}).varied({}).model_dump(mode="json")
    objective = Objective(base, space, trials.run.uri, trials.run.experiment_id, environment_for_ranks())
    watcher = _Watcher(settings, trials.run, progress)
    title = f"tune {settings.model.name} on {image_set.name}"
    with watched_step(progress, title, watcher.look, SECONDS_BETWEEN_LOOKS):
        while (left := settings.tune.trials - len(_finished(trials.run))) > 0:
            try:
                trials.optimize(spark, objective, left, settings.tune.parallel)
            except BaseException:
                # The tasks are gone, so they cannot end the runs of their trials.
                with suppress(Exception):
                    end_lost_runs(trials.run)
                raise
            if not end_lost_runs(trials.run):
                break


def _finished(run: Tracker) -> list[NestedRun]:
    """Return the trials that completed, were pruned, or failed. A trial whose task was lost does not count."""
    return [trial for trial in nested_runs(run) if trial.status in _STATES and read_tag(trial.tags, LOST) is None]


class _Watcher:
    """Prints a line for every trial that finishes, and shows how many have finished."""

    def __init__(self, settings: TuneSettings, run: Tracker, progress: Progress) -> None:
        self._trials = settings.tune.trials
        self._metric = settings.train.monitor
        self._space = settings.space
        self._run = run
        self._progress = progress
        self._reported = {trial.run_id for trial in _finished(run)}

    def look(self, advance: Advance) -> bool:
        try:
            finished = _finished(self._run)
        except Exception:
            return True  # The store does not answer now. This is only a display, so try again later.
        for trial in finished:
            if trial.run_id not in self._reported:
                self._reported.add(trial.run_id)
                self._progress.say(self._line(trial))
        advance(len(finished), self._trials, "trials")
        return True

    def _line(self, trial: NestedRun) -> str:
        drawn = ", ".join(f"{name}={trial.logged.settings.get(name, '?')}" for name in self._space)
        value = f"{self._metric} {trial.metrics['value']:.4f}" if "value" in trial.metrics else ""
        state = _STATES[trial.status]
        return f"{trial.name} {state}{': ' if value else ''}{value} ({drawn}), {trial.seconds:.1f} s"


def _results(settings: TuneSettings, run: Tracker, trials: "SparkTrials", folder: Path) -> Tuned:
    """Rank the trials, and write the result files. Raises TrainingError if no trial is complete."""
    from pipelines.tune.study import importances_of

    runs = {trial.run_id: trial for trial in _finished(run)}
    # MLflow's storage of studies uses the id of a trial's run as the id of the trial.
    finished = [trial for trial in trials.trials() if str(trial._trial_id) in runs]
    outcomes = [_outcome(trial, runs[str(trial._trial_id)]) for trial in finished]
    direction, metric = settings.train.best_direction, settings.train.monitor
    ordered = ranked(outcomes, direction)
    if not ordered or ordered[0].state != COMPLETE:
        first = next((outcome.error for outcome in outcomes if outcome.error), "it was pruned")
        raise TrainingError(f"none of {len(ordered)} trials is complete; the first one says: {first}")
    best = settings.varied(ordered[0].settings)
    importances = importances_of(finished, direction, settings.tune.seed)
    files = {TABLE: as_csv(trial_rows(ordered, metric)).encode(), BEST: best_yaml(best, ordered[0], metric).encode()}
    if importances:
        files[FIGURE] = importance_figure(importances, metric)
    keep_results(files, run, folder)
    run.log_best_trial(ordered[0].number, metric, ordered[0].value or 0.0)
    return Tuned(ordered, importances, best, metric, run.run_id, run.run_url, folder)


def _outcome(trial: Any, run: NestedRun) -> TrialOutcome:
    """Return the outcome of one trial, from Optuna's trial and from its MLflow run."""
    state = _STATES[run.status]
    return TrialOutcome(
        number=trial.number,
        run_id=run.run_id,
        state=state,
        value=None if state == FAILED else trial.value,
        epochs=len(trial.intermediate_values),
        seconds=run.seconds,
        settings=trial.params,
        error=(read_tag(run.tags, ERROR) or "") if state == FAILED else "",
    )
