"""The training of one rank, in the driver or in its own process. Only rank 0 writes to the MLflow run."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import keras

from cnnlib.config import TrainSettings
from cnnlib.image_set.contract import ImageSet
from cnnlib.training.advice import advice_on
from cnnlib.training.callbacks import IMAGES_PER_SECOND
from cnnlib.training.checkpoints import TrainingState, read_state, write_checkpoint
from cnnlib.training.fit import fit_model
from cnnlib.training.ranks import Ranks
from cnnlib.training.rate_finder import sweep_rates
from pipelines.tracking.publisher import Publisher
from pipelines.tracking.starting_weights import starting_weights
from pipelines.tracking.tracker import Tracker

# The file of a sweep of the learning rate in the run.
SWEEP_FILE = "sweep.json"


class Reporter(Protocol):
    """Shows the progress of a training: every step, and lines of text."""

    def step(self, done: int, total: int, note: str) -> None: ...

    def say(self, line: str) -> None: ...


def fit_and_publish(
    image_set: ImageSet,
    settings: TrainSettings,
    tracker: Tracker,
    *,
    ranks: Ranks,
    make_reporter: Callable[[Publisher], Reporter],
) -> keras.Model:
    """Train from the run's latest checkpoint, or from scratch; rank 0 publishes every epoch.

    With `train.find_rate`, sweep the learning rate instead. Returns the model as it is after the last step.
    `make_reporter` makes the reporter of rank 0 from its publisher. Raises the errors of `fit_model`, and
    TrackingError if the store rejects a checkpoint.
    """
    if settings.train.find_rate:
        return _sweep_and_publish(image_set, settings, tracker, ranks=ranks, make_reporter=make_reporter)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="sparkcnn-checkpoints-")))
        latest = tracker.latest_epoch()
        resume_from = tracker.fetch_checkpoint(latest, folder) if latest else None
        # A checkpoint has its own weights.
        weights = None if resume_from else stack.enter_context(starting_weights(settings))
        fit = partial(fit_model, image_set, settings, ranks=ranks, resume_from=resume_from, weights=weights)
        if ranks.rank != 0:
            model, _ = fit(on_epoch=lambda model, state: None, on_step=_ignore_step)
            return model
        if resume_from is not None:
            log_missing_epochs(tracker, read_state(resume_from), settings.train.monitor)
        with Publisher(tracker, folder / "written", settings.train.keep_last) as publisher:
            reporter = make_reporter(publisher)
            warned: set[str] = set()

            def on_epoch(model: keras.Model, state: TrainingState) -> None:
                logs = state.logs(state.epoch)
                publisher.publish(state.epoch, write_checkpoint(folder / "written", model, state), logs)
                reporter.say(epoch_line(state, settings))
                for kind, warning in advice_on(state.history, settings, len(image_set.classes)).items():
                    if kind not in warned:
                        reporter.say(f"warning: {warning}")
                        warned.add(kind)

            model, _ = fit(on_epoch=on_epoch, on_step=reporter.step)
            return model


def _sweep_and_publish(
    image_set: ImageSet,
    settings: TrainSettings,
    tracker: Tracker,
    *,
    ranks: Ranks,
    make_reporter: Callable[[Publisher], Reporter],
) -> keras.Model:
    with starting_weights(settings) as weights:
        sweep = partial(sweep_rates, image_set, settings, ranks=ranks, weights=weights)
        if ranks.rank != 0:
            return sweep(on_step=_ignore_step)[0]
        with TemporaryDirectory(prefix="sparkcnn-sweep-") as temporary:
            folder = Path(temporary)
            with Publisher(tracker, folder, settings.train.keep_last) as publisher:
                model, found = sweep(on_step=make_reporter(publisher).step)
            found.write(folder / SWEEP_FILE)
            tracker.log_rate_sweep(folder)
            return model


def _ignore_step(done: int, total: int, note: str) -> None:
    pass


def log_missing_epochs(tracker: Tracker, state: TrainingState, metric: str) -> None:
    """Log the metrics of epochs that have only a checkpoint in the run, because a process died between the two."""
    logged = tracker.logged_epochs(metric)
    for epoch in range(1, state.epoch + 1):
        if epoch not in logged:
            tracker.log_epoch(epoch, state.logs(epoch))


def epoch_line(state: TrainingState, settings: TrainSettings) -> str:
    """Return the line that reports a finished epoch."""
    logs = state.logs(state.epoch)
    shown = ", ".join(f"{name} {logs[name]:.4f}" for name in ("loss", "accuracy", "val_loss", "val_accuracy"))
    return f"epoch {state.epoch}/{settings.train.epochs}: {shown}, {logs[IMAGES_PER_SECOND]:,.0f} images/s"
