"""The bridge to Optuna and to MLflow's study on Spark: a study is an MLflow run, and each trial is a nested run.

Only MLflow 3 has the study. So `pipelines.tune.flow` imports this module only after it has checked that.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import cast

import optuna
from mlflow import MlflowClient
from mlflow.exceptions import ExecutionException
from mlflow.optuna.storage import MlflowStorage
from mlflow.pyspark.optuna.study import MlflowSparkStudy
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from cnnlib.errors import TrainingError
from pipelines.spark.interruptible_job import run_interruptibly
from pipelines.spark.session import is_classic, root_cause
from pipelines.spark.tasks import user_errors_from_tasks
from pipelines.tracking.tracker import Tracker

JOB_GROUP = "spark.jobGroup.id"
_DIRECTIONS = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)

# Trains with the settings of a trial, and returns the value to optimize.
ObjectiveFunction = Callable[[optuna.Trial], float]


def create_study_run(experiment_id: str, name: str, direction: str) -> str:
    """Create the MLflow run of a new study and return its id. `name` must be unique, `direction` is "max" or "min"."""
    return cast(str, MlflowStorage(experiment_id).create_new_study([_DIRECTIONS[direction]], name))


@dataclass(frozen=True)
class SparkTrials:
    """The trials of the study with this MLflow run. They run as Spark tasks; Optuna draws their settings.

    The first `startup_trials` draw at random, the later ones with the tree-structured Parzen estimator (Bergstra et al.
    2011). As soon as `startup_trials` have finished, a trial is pruned after an epoch whose value is worse than the
    median of the other trials at that epoch.
    """

    run: Tracker
    name: str
    startup_trials: int
    seed: int

    def optimize(self, spark: SparkSession, objective: ObjectiveFunction, trials: int, parallel: int) -> None:
        """Run this many more trials. If the objective raises, its trial fails and the study continues.

        Raises TrainingError if Spark or the store fails.
        """
        earlier = len(self.trials())
        study = MlflowSparkStudy(
            self.name,
            MlflowStorage(self.run.experiment_id),
            # With the same seed, a study that is continued would draw its first settings again.
            sampler=optuna.samplers.TPESampler(n_startup_trials=self.startup_trials, seed=self.seed + earlier),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=self.startup_trials),
            mlflow_tracking_uri=self.run.uri,
        )
        try:
            with user_errors_from_tasks(spark), _in_own_job_group(spark, self.name):
                run_interruptibly(
                    spark,
                    partial(
                        study.optimize,
                        objective,
                        n_trials=trials,
                        n_jobs=min(parallel, trials),
                        catch=(Exception,),
                        callbacks=[_StopAfter(earlier + trials)],
                    ),
                )
        except (ExecutionException, PySparkException, Py4JJavaError) as error:
            raise TrainingError(
                f"the study's tasks failed ({root_cause(error)}); solve that, then continue the study with "
                f"--tune.resume {self.run.run_id}"
            ) from error
        # MLflow has marked the run as finished, but it is finished only after its results are kept.
        MlflowClient(self.run.uri).update_run(self.run.run_id, status="RUNNING")

    def trials(self) -> list[FrozenTrial]:
        """Return all trials so far, in the order in which they started."""
        storage = MlflowStorage(self.run.experiment_id)
        found = storage.get_all_trials(self.run.run_id)
        return sorted(found, key=lambda trial: (trial.datetime_start, trial.number))


@dataclass(frozen=True)
class _StopAfter:
    """Stops the trials of a task as soon as the study has this many finished trials.

    If Spark repeats a task that it lost, the task gets all of its trials again, also those that had finished.
    """

    trials: int

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        if len(study.get_trials(deepcopy=False, states=ENDED)) >= self.trials:
            # study.stop() raises outside of Optuna's own loop, and MLflow has a loop of its own. Both read this flag.
            study._stop_flag = True


def importances_of(trials: Sequence[FrozenTrial], direction: str, seed: int) -> dict[str, float]:
    """Return the fraction of the variation of the values that each setting explains.

    Computed by functional ANOVA (Hutter et al. 2014). The result is empty if fewer than two trials are complete, or if
    all of them have the same value.
    """
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if len({trial.value for trial in complete}) < 2:
        return {}
    with _quietly():
        study = optuna.create_study(direction=_DIRECTIONS[direction])
        study.add_trials(complete)
        found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=seed))
    return {name: float(fraction) for name, fraction in found.items()}


@contextmanager
def _in_own_job_group(spark: SparkSession, name: str) -> Iterator[None]:
    """Set a job group while the body runs, and restore the earlier one.

    Without one, MLflow would set a job group that interrupts tasks, and would leave it set.
    """
    if not is_classic(spark):
        yield
        return
    context = spark.sparkContext
    before = context.getLocalProperty(JOB_GROUP)
    context.setLocalProperty(JOB_GROUP, before or name)
    try:
        yield
    finally:
        context.setLocalProperty(JOB_GROUP, cast(str, before))  # None removes it


@contextmanager
def _quietly() -> Iterator[None]:
    """Hide the log lines that Optuna writes for each trial."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
