"""The bridge to Optuna and to MLflow's Spark study: a study is an MLflow run, each of its trials one nested in it.

MLflow 3 brings the study; nothing else imports this module before that is known.
"""

import logging
import secrets
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
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
from pyspark import inheritable_thread_target
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from cnnlib.errors import TrainingError
from pipelines.spark.session import is_classic, root_cause, user_errors_from_tasks
from pipelines.tracking.tracker import Tracker

SECONDS_TO_CANCEL = 10.0
JOB_GROUP = "spark.jobGroup.id"
_DIRECTIONS = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)

# Trains as a trial says, and gives the value that is sought.
ObjectiveFunction = Callable[[optuna.Trial], float]


def create_study_run(experiment_id: str, name: str, direction: str) -> str:
    """Make the run of a new study, by the direction "max" or "min". Gives its id; `name` must be the only one such."""
    return cast(str, MlflowStorage(experiment_id).create_new_study([_DIRECTIONS[direction]], name))


@dataclass(frozen=True)
class SparkTrials:
    """The trials of the study whose run this is: asked for, pruned and told by Optuna, run as Spark tasks.

    A trial may be pruned once `startup_trials` have ended, after an epoch whose value is worse than the median of the
    others' at that epoch; until then what they try is drawn at random, later by the tree-structured Parzen estimator
    (Bergstra et al. 2011).
    """

    run: Tracker
    name: str
    startup_trials: int
    seed: int

    def optimize(self, spark: SparkSession, objective: ObjectiveFunction, trials: int, parallel: int) -> None:
        """Run so many more trials. An objective that raises fails its trial, and the study goes on.

        Raises TrainingError where Spark or the store fail.
        """
        earlier = len(self.trials())
        study = MlflowSparkStudy(
            self.name,
            MlflowStorage(self.run.experiment_id),
            # A study that is gone on with would draw again what it drew first.
            sampler=optuna.samplers.TPESampler(n_startup_trials=self.startup_trials, seed=self.seed + earlier),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=self.startup_trials),
            mlflow_tracking_uri=self.run.uri,
        )
        try:
            with user_errors_from_tasks(spark), _in_own_job_group(spark, self.name):
                _run_in_thread(
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
                f"the study's tasks failed ({root_cause(error)}); look into it, then go on with "
                f"--tune.resume {self.run.run_id}"
            ) from error
        # It has called the study finished; that it is when its results are kept too.
        MlflowClient(self.run.uri).update_run(self.run.run_id, status="RUNNING")

    def trials(self) -> list[FrozenTrial]:
        """All trials so far, in the order in which they were started."""
        storage = MlflowStorage(self.run.experiment_id)
        found = storage.get_all_trials(self.run.run_id)
        return sorted(found, key=lambda trial: (trial.datetime_start, trial.number))


@dataclass(frozen=True)
class _StopAfter:
    """Ends a task's share once so many trials have ended: Spark gives a task that it lost all of its trials again."""

    trials: int

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        if len(study.get_trials(deepcopy=False, states=ENDED)) >= self.trials:
            # Optuna's own stop() works in its own loop alone, and MLflow has another; both look at this.
            study._stop_flag = True


def importances_of(trials: Sequence[FrozenTrial], direction: str, seed: int) -> dict[str, float]:
    """What share of the values' variation each setting explains, by functional ANOVA (Hutter et al. 2014).

    Empty where fewer than two trials ran to their end, or all of them with the same value.
    """
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if len({trial.value for trial in complete}) < 2:
        return {}
    with _quietly():
        study = optuna.create_study(direction=_DIRECTIONS[direction])
        study.add_trials(complete)
        found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=seed))
    return {name: float(share) for name, share in found.items()}


def _run_in_thread(spark: SparkSession, work: Callable[[], None]) -> None:
    """Run Spark jobs in a thread, so that an interrupt meets this one outside of a call to the JVM, and ends them.

    See `pipelines.train.workers.launch`, which collects so.
    """
    tag = f"sparkcnn-{secrets.token_hex(8)}"
    classic = is_classic(spark)
    done: Future[None] = Future()

    def run() -> None:
        (spark.sparkContext.addJobTag if classic else spark.addTag)(tag)
        try:
            work()
            done.set_result(None)
        except BaseException as error:
            done.set_exception(error)

    with warnings.catch_warnings():
        # Job group, pool and the like are the caller's; that tags are not is told as a warning.
        warnings.simplefilter("ignore", UserWarning)
        target = inheritable_thread_target(run) if classic else run
    threading.Thread(target=target, name="sparkcnn-study", daemon=True).start()
    try:
        done.result()
    except BaseException:
        with suppress(Exception):  # the jobs may be over, and Spark with them
            (spark.sparkContext.cancelJobsWithTag if classic else spark.interruptTag)(tag)
        wait([done], SECONDS_TO_CANCEL)
        raise


@contextmanager
def _in_own_job_group(spark: SparkSession, name: str) -> Iterator[None]:
    """MLflow sets a job group that interrupts tasks, and leaves it set; it takes one that is there already."""
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
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
