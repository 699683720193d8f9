"""Trials of settings on Spark, guided by Optuna, in one MLflow run: a table, what matters, and the best settings."""

import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pyspark.sql import SparkSession

from cnnlib.config import Distribution, TrainSettings, TuneSettings
from cnnlib.errors import ConfigError, HostError, TrackingError, TrainingError
from cnnlib.image_set.contract import ImageSet, open_image_set
from cnnlib.reports.curves import importance_figure
from cnnlib.training.buildable import check_buildable
from cnnlib.tuning.comparison import as_csv
from cnnlib.tuning.trials import COMPLETE, FAILED, PRUNED, TrialOutcome, ranked, trial_rows
from pipelines.spark.cluster import environment_for_ranks, store_problem
from pipelines.spark.progress import Advance, Progress, watched_step
from pipelines.tracking.runs import LOST_TAG, NestedRun, end_lost_runs, nested_runs, tracked_run
from pipelines.tracking.starting_weights import fetched_once, pinned, with_pinned_weights
from pipelines.tracking.store import connect
from pipelines.tracking.tracker import Tracker
from pipelines.tune.results import described_search, keep_results, make_results_folder

if TYPE_CHECKING:  # Optuna's and MLflow's study is not there on every profile
    from pipelines.tune.study import SparkTrials

BEST = "best.yaml"
TABLE = "trials.csv"
FIGURE = "importance.png"
SECONDS_BETWEEN_LOOKS = 1.0
SPARK_STUDY = "mlflow.pyspark.optuna.study"
_STATES = {"FINISHED": COMPLETE, "KILLED": PRUNED, "FAILED": FAILED}


@dataclass(frozen=True)
class Tuned:
    """A study's trials, the best first; what share of the variation each setting explains (empty where that is not
    known); the settings of the best; the run's id and page; and the folder with the files.
    """

    trials: list[TrialOutcome]
    importances: dict[str, float]
    best: TrainSettings
    metric: str
    run_id: str
    run_url: str
    folder: Path


def tune(spark: SparkSession, settings: TuneSettings, progress: Progress | None = None) -> Tuned:
    """Run trials as Spark tasks, each in a run nested in the study's; nothing is registered.

    Goes on with a study that was killed where `tune.resume` says so: what has ended stays, what had not is tried again.
    Raises HostError where MLflow has no Spark study, ImageSetError, ConfigError and TrackingError before anything is
    trained, TrainingError where no trial came to its end.
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
        with fetched_once() as weights_of:
            _check_space(image_set, settings, space, weights_of)
    # MLflow finds a study by its name, which stands in quotes in its query.
    name = f"tune {settings.model.name} on {image_set.name} {uuid.uuid4().hex[:8]}".replace("'", "")
    direction = settings.train.best_direction
    with tracked_run(
        uri,
        settings.tracking.experiment,
        name,
        settings.tune.resume,
        described_search(settings, "tune", uri),
        image_set,
        job="tune",
        create=lambda experiment_id, name: create_study_run(experiment_id, name, direction),
    ) as run:
        asked = settings.tune
        trials = SparkTrials(run, run.tag("mlflow.runName") or name, asked.startup_trials, asked.seed)
        _search(spark, image_set, settings, space, trials, progress)
        return _results(settings, run, trials, folder)


def _check_available() -> None:
    if find_spec("mlflow.pyspark.optuna") is None or find_spec(SPARK_STUDY) is None:
        raise HostError(
            f"tune needs MLflow's study on Spark ({SPARK_STUDY}), which MLflow {version('mlflow')} does not have; "
            "install MLflow 3, as the profile current does"
        )


def _pinned_space(settings: TuneSettings) -> dict[str, Distribution]:
    """What is tried of each setting, with the weights to begin with as `with_pinned_weights` has them."""
    space = settings.space
    weights = space.get("model.weights")
    if weights is not None:
        space["model.weights"] = replace(weights, values=tuple(map(pinned, weights.values)))
    return space


def _check_space(
    image_set: ImageSet,
    settings: TuneSettings,
    space: dict[str, Distribution],
    weights_of: Callable[[TrainSettings], str | None],
) -> None:
    """Raise ConfigError for a value of the space with which no model can be built, whatever the others are."""

    def check(changes: dict[str, Any], given: str) -> None:
        varied = settings.varied(changes)
        check_buildable(image_set, varied, given, weights_of(varied))

    firsts = {name: distribution.values[0] for name, distribution in space.items()}
    for name, distribution in space.items():
        for value in distribution.values:
            try:
                check({name: value}, f"{name}={value}")
            except ConfigError:
                # It may be meant for other settings than the given ones: beta_1 for adam, which another choice names.
                check(firsts | {name: value}, f"{name}={value}")


def _search(
    spark: SparkSession,
    image_set: ImageSet,
    settings: TuneSettings,
    space: dict[str, Distribution],
    trials: "SparkTrials",
    progress: Progress,
) -> None:
    """Run the trials that are left, those that were lost on the way again."""
    from pipelines.tune.objective import Objective

    end_lost_runs(trials.run)
    # Tasks have working folders of their own.
    data = settings.data.model_copy(update={"path": image_set.folder.uri})
    plain = settings.model_copy(update={"data": data}).varied({}).model_dump(mode="json")
    objective = Objective(plain, space, trials.run.uri, trials.run.experiment_id, environment_for_ranks())
    watcher = _Watcher(settings, trials.run, progress)
    title = f"tune {settings.model.name} on {image_set.name}"
    with watched_step(progress, title, watcher.look, SECONDS_BETWEEN_LOOKS):
        while (left := settings.tune.trials - len(_ended(trials.run))) > 0:
            try:
                trials.optimize(spark, objective, left, settings.tune.parallel)
            except BaseException:
                # Ended or interrupted: nobody is left to end them.
                with suppress(Exception):
                    end_lost_runs(trials.run)
                raise
            if not end_lost_runs(trials.run):
                break


def _ended(run: Tracker) -> list[NestedRun]:
    return [one for one in nested_runs(run) if one.status in _STATES and LOST_TAG not in one.tags]


class _Watcher:
    """Tells every trial that has ended in a line, and how many have."""

    def __init__(self, settings: TuneSettings, run: Tracker, progress: Progress) -> None:
        self._trials = settings.tune.trials
        self._metric = settings.train.monitor
        self._space = settings.space
        self._run = run
        self._progress = progress
        self._told = {one.run_id for one in _ended(run)}

    def look(self, advance: Advance) -> bool:
        try:
            ended = _ended(self._run)
        except Exception:
            return True  # the store is away; this is only for show
        for one in ended:
            if one.run_id not in self._told:
                self._told.add(one.run_id)
                self._progress.say(self._line(one))
        advance(len(ended), self._trials, "trials")
        return True

    def _line(self, one: NestedRun) -> str:
        drawn = ", ".join(f"{name}={one.logged.settings.get(name, '?')}" for name in self._space)
        value = f"{self._metric} {one.metrics['value']:.4f}" if "value" in one.metrics else ""
        state = _STATES[one.status]
        return f"{one.name} {state}{': ' if value else ''}{value} ({drawn}), {one.seconds:.1f} s"


def _results(settings: TuneSettings, run: Tracker, trials: "SparkTrials", folder: Path) -> Tuned:
    """Rank the trials, and keep table, importance and best settings. Raises TrainingError where none is complete."""
    from pipelines.tune.study import importances_of

    runs = {one.run_id: one for one in _ended(run)}
    frozen = [trial for trial in trials.trials() if str(trial._trial_id) in runs]
    outcomes = [_outcome(trial, runs[str(trial._trial_id)]) for trial in frozen]
    direction, metric = settings.train.best_direction, settings.train.monitor
    ordered = ranked(outcomes, direction)
    if not ordered or ordered[0].state != COMPLETE:
        first = next((one.error for one in outcomes if one.error), "it was pruned")
        raise TrainingError(f"no trial of {len(ordered)} came to its end; the first says: {first}")
    best = settings.varied(ordered[0].settings)
    importances = importances_of(frozen, direction, settings.tune.seed)
    files = {TABLE: as_csv(trial_rows(ordered, metric)).encode(), BEST: best_yaml(best, ordered[0], metric).encode()}
    if importances:
        files[FIGURE] = importance_figure(importances, metric)
    keep_results(files, run, folder)
    run.log_best_trial(ordered[0].number, metric, ordered[0].value or 0.0)
    return Tuned(ordered, importances, best, metric, run.run_id, run.run_url, folder)


def _outcome(trial: Any, run: NestedRun) -> TrialOutcome:
    """What became of one of Optuna's trials."""
    from pipelines.tune.objective import ERROR_TAG

    state = _STATES[run.status]
    return TrialOutcome(
        number=trial.number,
        run_id=run.run_id,
        state=state,
        value=None if state == FAILED else trial.value,
        epochs=len(trial.intermediate_values),
        seconds=run.seconds,
        settings=trial.params,
        error=run.tags.get(ERROR_TAG, "") if state == FAILED else "",
    )


def best_yaml(best: TrainSettings, trial: TrialOutcome, metric: str) -> str:
    """The settings of the best trial, as a file that train takes."""
    values = best.model_dump(mode="json", exclude={"register": True, "train": {"resume"}})
    heading = f"# sparkcnn train --config {BEST}\n# Trial {trial.number}: {metric} {trial.value:.4f}\n"
    return heading + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
