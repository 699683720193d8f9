"""What a Spark task does for a trial: draw settings, train, report every epoch, and log into the trial's run."""

import math
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import optuna
from pyspark import TaskContext

from cnnlib.config import Distribution, TrainSettings
from cnnlib.config.overrides import override
from cnnlib.config.space import CHOICE
from cnnlib.errors import HostError, SparkcnnError, TrainingError, first_line
from cnnlib.quiet import import_tensorflow_quietly
from pipelines.tracking.store import use_store
from pipelines.tracking.tracker import FINGERPRINT_TAG, Tracker
from pipelines.train.workers.gpus import check_gpu

if TYPE_CHECKING:  # they import TensorFlow
    import keras

    from cnnlib.training.checkpoints import TrainingState

ERROR_TAG = "sparkcnn.error"
RUN_NAME_TAG = "mlflow.runName"
DEVICES = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Objective:
    """Trains with the settings of a trial, and gives the best `train.monitor` of its epochs.

    `settings` are those of TrainSettings as plain values, with an absolute `data.path`; `environment` has the driver's
    variables that a task needs to reach the store.
    """

    settings: dict[str, Any]
    space: dict[str, Distribution]
    uri: str
    experiment_id: str
    environment: dict[str, str]

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Come to a task: MLflow opens the store there before it calls for a trial."""
        self.__dict__.update(state)
        os.environ.update(self.environment)

    def __call__(self, trial: optuna.Trial) -> float:
        """Train. Raises TrialPruned, or what made the training fail, which the trial's run then tells."""
        use_store(self.uri)
        # MLflow's storage of studies calls a trial by the id of its run.
        tracker = Tracker(str(trial._trial_id), self.experiment_id, self.uri)
        try:
            tracker.set_tag(RUN_NAME_TAG, f"trial {trial.number}")
            values = {name: suggest(trial, name, one) for name, one in self.space.items()}
            return self._trained(trial, override(TrainSettings(**self.settings), values), tracker)
        except optuna.TrialPruned:
            raise
        except Exception as error:
            message = error.message if isinstance(error, SparkcnnError) else first_line(error)
            tracker.set_tag(ERROR_TAG, f"{type(error).__name__}: {message}")
            raise

    def _trained(self, trial: optuna.Trial, settings: TrainSettings, tracker: Tracker) -> float:
        _prepare_tensorflow()
        import keras

        from cnnlib.image_set.contract import open_image_set
        from cnnlib.training.epochs import best_epoch_of
        from cnnlib.training.fit import fit_model
        from pipelines.tracking.starting_weights import starting_weights
        from pipelines.train.flow import described_settings

        image_set = open_image_set(settings.data.path)
        described = described_settings(settings, self.uri)
        # The study has logged what it has drawn.
        tracker.log_settings({name: value for name, value in described.items() if name not in self.space})
        tracker.set_tag(FINGERPRINT_TAG, image_set.fingerprint)
        monitor = settings.train.monitor

        def on_epoch(model: "keras.Model", state: "TrainingState") -> None:
            logs = state.logs(state.epoch)
            tracker.log_epoch(state.epoch, logs)
            trial.report(logs[monitor], state.epoch)
            # A trial that has come to its end has nothing left to save.
            if state.epoch < settings.train.epochs and trial.should_prune():
                raise optuna.TrialPruned(f"{monitor} {logs[monitor]:.4f} is worse than the median at {state.epoch}")

        try:
            with starting_weights(settings) as weights:
                _, history = fit_model(
                    image_set, settings, on_epoch=on_epoch, on_step=lambda done, total, note: None, weights=weights
                )
        finally:
            # The worker goes on to the next trial; Keras would keep this one's model.
            keras.backend.clear_session()
        best = best_epoch_of(history, settings)
        value = history[monitor][best - 1]
        if math.isnan(value):
            raise TrainingError(f"{monitor} was no number in any epoch; take another learning rate, say")
        tracker.log_best(best, monitor, value)
        return value


def suggest(trial: optuna.Trial, name: str, distribution: Distribution) -> Any:
    """Have a trial draw the value of a setting."""
    if distribution.kind == CHOICE:
        return trial.suggest_categorical(name, distribution.values)
    low, high = distribution.values
    draw = trial.suggest_int if distribution.whole else trial.suggest_float
    return draw(name, low, high, log=distribution.logarithmic)


def sees_only(devices: str) -> bool:
    """Whether the TensorFlow of an earlier task has these devices alone: a process keeps those with which it began."""
    began_with = os.environ.get(DEVICES)
    if began_with is not None:
        return began_with == devices
    import tensorflow as tf

    # A task that scores takes what there is.
    return not devices and not tf.config.list_physical_devices("GPU")


def _prepare_tensorflow() -> None:
    """Import TensorFlow with as many threads as Spark counts for the task, and the GPU that Spark gave it, if any."""
    context = TaskContext.get()
    cpus = str(context.cpus()) if context else "1"
    gpus = context.resources().get("gpu") if context else None
    devices = gpus.addresses[0] if gpus and gpus.addresses else ""
    if "tensorflow" in sys.modules and not sees_only(devices):
        raise HostError(
            f"Spark gave a task the GPU {devices or '(none)'} in a Python worker that began with "
            f"{os.environ.get(DEVICES, 'all there are') or '(none)'}; start it with spark.python.worker.reuse=false"
        )
    os.environ[DEVICES] = devices
    os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = cpus
    import_tensorflow_quietly()
    if devices:
        check_gpu(devices, "a task of the study")
