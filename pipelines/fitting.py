"""One rank's training, in the driver or in a process of its own: rank 0 alone writes to the MLflow run."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import keras

from cnnlib.config import TrainSettings
from cnnlib.imageset import ImageSet
from cnnlib.sealed import ARTIFACTS
from cnnlib.training.advice import advice_on
from cnnlib.training.callbacks import IMAGES_PER_SECOND
from cnnlib.training.checkpoints import History, TrainingState, read_state, write_checkpoint
from cnnlib.training.fit import fit_model
from cnnlib.training.preconditions import REGISTERED
from cnnlib.training.ranks import Ranks
from pipelines.publisher import Publisher
from pipelines.registry import fetch_model
from pipelines.tracking import Tracker


class Narrator(Protocol):
    """Who is told of steps, and of every finished epoch in a line."""

    def step(self, done: int, total: int, note: str) -> None: ...

    def say(self, line: str) -> None: ...


def fit_and_publish(
    image_set: ImageSet,
    settings: TrainSettings,
    tracker: Tracker,
    *,
    ranks: Ranks,
    narrator: Callable[[Publisher], Narrator],
) -> tuple[keras.Model, History]:
    """Train from the run's latest checkpoint on, or from scratch; rank 0 publishes every epoch.

    Gives the model as the last epoch left it, and the history of all epochs. `narrator` makes rank 0's of its
    publisher. Raises what `fit_model` raises, and TrackingError where the run does not take a checkpoint.
    """
    with TemporaryDirectory(prefix="sparkcnn-checkpoints-") as temporary:
        folder = Path(temporary)
        latest = tracker.latest_epoch()
        resume_from = tracker.fetch_checkpoint(latest, folder) if latest else None
        fit = partial(
            fit_model,
            image_set,
            settings,
            ranks=ranks,
            resume_from=resume_from,
            weights=_weights(settings, folder, resume_from),
        )
        if ranks.rank != 0:
            return fit(on_epoch=lambda model, state: None, on_step=lambda done, total, note: None)
        if resume_from is not None:
            log_missing_epochs(tracker, read_state(resume_from), settings.train.monitor)
        with Publisher(tracker, folder / "written", settings.train.keep_last) as publisher:
            told = narrator(publisher)
            warned: set[str] = set()

            def on_epoch(model: keras.Model, state: TrainingState) -> None:
                logs = state.logs(state.epoch)
                publisher.publish(state.epoch, write_checkpoint(folder / "written", model, state), logs)
                told.say(epoch_line(state, settings))
                for kind, words in advice_on(state.history, settings, len(image_set.classes)).items():
                    if kind not in warned:
                        told.say(f"warning: {words}")
                        warned.add(kind)

            return fit(on_epoch=on_epoch, on_step=told.step)


def _weights(settings: TrainSettings, folder: Path, resume_from: Path | None) -> str | None:
    """What `model.weights` names, on this machine: a registered model is downloaded. None where none are needed."""
    weights = settings.model.weights
    if weights is None or resume_from is not None:
        return None
    return str(fetch_model(weights, folder).folder / ARTIFACTS) if weights.startswith(REGISTERED) else weights


def log_missing_epochs(tracker: Tracker, state: TrainingState, metric: str) -> None:
    """Log the metrics of epochs whose checkpoint reached the run when they did not: a process died in between."""
    logged = tracker.logged_epochs(metric)
    for epoch in range(1, state.epoch + 1):
        if epoch not in logged:
            tracker.log_epoch(epoch, state.logs(epoch))


def epoch_line(state: TrainingState, settings: TrainSettings) -> str:
    """What people are told of a finished epoch."""
    logs = state.logs(state.epoch)
    shown = ", ".join(f"{name} {logs[name]:.4f}" for name in ("loss", "accuracy", "val_loss", "val_accuracy"))
    return f"epoch {state.epoch}/{settings.train.epochs}: {shown}, {logs[IMAGES_PER_SECOND]:,.0f} images/s"
