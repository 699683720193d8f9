"""One trial in a Spark task: draw settings, train, report every epoch, and log in the MLflow run of the trial."""

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
from pipelines.tracking.tracker import FINGERPRINT, Tracker
from pipelines.train.workers.rank import check_gpu

# A task must choose its GPU before TensorFlow is imported. So whatever imports TensorFlow is imported in functions.
if TYPE_CHECKING:
    import keras

    from cnnlib.training.checkpoints import TrainingState

ERROR = "error"
DEVICES = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Objective:
    """Trains with the settings that a trial draws, and returns the best `train.monitor` of the epochs.

    `settings` are TrainSettings as plain values, with an absolute `data.path`. `uri` is the MLflow store of the study,
    and `experiment_id` its experiment. `environment` has the driver's variables that a task needs to reach the store.
    """

    settings: dict[str, Any]
    space: dict[str, Distribution]
    uri: str
    experiment_id: str
    environment: dict[str, str]

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Set the environment as soon as a task unpickles this: MLflow opens the store there before the first trial."""
        self.__dict__.update(state)
        os.environ.update(self.environment)

    def __call__(self, trial: optuna.Trial) -> float:
        """Train, and return the value of the trial.

        Raises TrialPruned, or the error of the training, which is also kept as a tag of the trial's run.
        """
        use_store(self.uri)
        # MLflow's storage of studies uses the id of a trial's run as the id of the trial.
        tracker = Tracker(str(trial._trial_id), self.experiment_id, self.uri)
        try:
            tracker.set_name(f"trial {trial.number}")
            values = {name: suggest(trial, name, distribution) for name, distribution in self.space.items()}
            return self._train(trial, override(TrainSettings(**self.settings), values), tracker)
        except optuna.TrialPruned:
            raise
        except Exception as error:
            message = error.message if isinstance(error, SparkcnnError) else first_line(error)
            tracker.set_tag(ERROR, value=f"{type(error).__name__}: {message}")
            raise

    def _train(self, trial: optuna.Trial, settings: TrainSettings, tracker: Tracker) -> float:
        _prepare_tensorflow()
        import keras

        from cnnlib.image_set.contract import open_image_set
        from cnnlib.training.checkpoints import best_epoch_of
        from cnnlib.training.fit import fit_model
        from pipelines.tracking.starting_weights import starting_weights
        from pipelines.train.flow import described_settings

        image_set = open_image_set(settings.data.path)
        described = described_settings(settings, self.uri)
        # The study itself logs the settings that it draws.
        tracker.log_settings({name: value for name, value in described.items() if name not in self.space})
        tracker.set_tag(FINGERPRINT, value=image_set.fingerprint)
        monitor = settings.train.monitor

        def on_epoch(model: "keras.Model", state: "TrainingState") -> None:
            logs = state.logs(state.epoch)
            tracker.log_epoch(state.epoch, logs)
            trial.report(logs[monitor], state.epoch)
            # After the last epoch, pruning saves nothing.
            if state.epoch < settings.train.epochs and trial.should_prune():
                raise optuna.TrialPruned(
                    f"{monitor} {logs[monitor]:.4f} is worse than the median at epoch {state.epoch}"
                )

        try:
            with starting_weights(settings) as weights:
                _, history = fit_model(
                    image_set, settings, on_epoch=on_epoch, on_step=lambda done, total, note: None, weights=weights
                )
        finally:
            # The process runs the next trial, and Keras would keep this one's model in memory.
            keras.backend.clear_session()
        best = best_epoch_of(history, settings)
        value = history[monitor][best - 1]
        if math.isnan(value):
            raise TrainingError(f"{monitor} was NaN in every epoch; try another learning rate, for example")
        tracker.log_best(best, monitor, value)
        return value


def suggest(trial: optuna.Trial, name: str, distribution: Distribution) -> Any:
    """Let a trial draw the value of a setting from its distribution."""
    if distribution.kind == CHOICE:
        return trial.suggest_categorical(name, distribution.values)
    low, high = distribution.values
    draw = trial.suggest_int if distribution.whole else trial.suggest_float
    return draw(name, low, high, log=distribution.logarithmic)


def sees_only(devices: str) -> bool:
    """Return whether the TensorFlow of this process sees exactly these GPUs.

    A process keeps the GPUs with which an earlier task imported TensorFlow.
    """
    earlier = os.environ.get(DEVICES)
    if earlier is not None:
        return earlier == devices
    import tensorflow as tf

    # A scoring task does not choose devices, so TensorFlow sees every GPU of the machine.
    return not devices and not tf.config.list_physical_devices("GPU")


def _prepare_tensorflow() -> None:
    """Import TensorFlow with the number of threads, and with the GPU if any, that Spark assigned to the task."""
    context = TaskContext.get()
    cpus = str(context.cpus()) if context else "1"
    gpus = context.resources().get("gpu") if context else None
    devices = gpus.addresses[0] if gpus and gpus.addresses else ""
    if "tensorflow" in sys.modules and not sees_only(devices):
        raise HostError(
            f"Spark assigned the GPU {devices or '(none)'} to a task, but its Python process already uses TensorFlow "
            f"with the GPU {os.environ.get(DEVICES, '(all)') or '(none)'}; start Spark with "
            "spark.python.worker.reuse=false"
        )
    os.environ[DEVICES] = devices
    os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = cpus
    import_tensorflow_quietly(in_task=True)
    if devices:
        check_gpu(devices, "a task of the study")
