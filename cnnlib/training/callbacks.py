"""What happens around the steps and epochs of `fit`: clocks, seeds, averages over ranks, and what others are told."""

import time
from collections.abc import Callable, Mapping

import keras
import numpy as np

from cnnlib.feed.data_wait import DataWait
from cnnlib.feed.sharding import worker_rows
from cnnlib.training.ranks import Ranks
from cnnlib.training.training_model import TrainingModel

# (epoch from 1, metrics by name); gives whether training shall go on
ReportEpoch = Callable[[int, dict[str, float]], bool]
# (steps done, steps in all epochs, note)
ReportStep = Callable[[int, int, str], None]

IMAGES_PER_SECOND = "images_per_second"
EPOCH_SECONDS = "epoch_seconds"
STEP_SECONDS = "step_seconds"
DATA_WAIT_SHARE = "data_wait_share"

Logs = Mapping[str, float] | None


def rank_metric(rank: int, name: str) -> str:
    """The name of one rank's own metric.

    >>> rank_metric(1, STEP_SECONDS)
    'rank_1/step_seconds'
    """
    return f"rank_{rank}/{name}"


class EpochReport(keras.callbacks.Callback):
    """Reports an epoch's metrics as Keras names them, with its times; the same on every rank.

    `images_per_second` (of all ranks together), `step_seconds` and `data_wait_share` (the part of the steps' time in
    which they waited for data, 0 to 1; means over the ranks) are of training alone, `epoch_seconds` takes in
    validation. With several ranks, each one's are added under `rank_0/…`. `rows` are those of an epoch.
    """

    def __init__(self, rows: int, ranks: Ranks, data_wait: DataWait, report: ReportEpoch) -> None:
        super().__init__()
        self._rows = rows
        self._ranks = ranks
        self._data_wait = data_wait
        self._report = report
        self._epoch_start = 0.0
        self._train_seconds: float | None = None

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Start the clock, on all ranks at once: rank 0 has just written the last epoch's checkpoint."""
        self._ranks.gather([0.0])
        self._data_wait.take()
        self._train_seconds = None
        self._epoch_start = time.monotonic()

    def on_test_begin(self, logs: Logs = None) -> None:
        """Stop the training clock: `fit` validates from here on."""
        self._train_seconds = time.monotonic() - self._epoch_start

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Report the epoch."""
        seconds = time.monotonic() - self._epoch_start
        train_seconds = self._train_seconds or seconds
        own_rows = len(worker_rows(self._rows, self._ranks.shard))
        # (ranks, 3)
        of_ranks = self._ranks.gather(
            (
                own_rows / train_seconds,
                train_seconds / self.params["steps"],
                self._data_wait.take() / train_seconds,
            )
        )
        metrics = {name: float(value) for name, value in (logs or {}).items()}
        metrics[EPOCH_SECONDS] = seconds
        metrics[IMAGES_PER_SECOND] = float(of_ranks[:, 0].sum())
        metrics[STEP_SECONDS], metrics[DATA_WAIT_SHARE] = of_ranks[:, 1:].mean(axis=0).tolist()
        if self._ranks.count > 1:
            for rank, values in enumerate(of_ranks.tolist()):
                for name, value in zip((IMAGES_PER_SECOND, STEP_SECONDS, DATA_WAIT_SHARE), values, strict=True):
                    metrics[rank_metric(rank, name)] = value
        if not self._report(epoch + 1, metrics):
            self.model.stop_training = True


class StepReport(keras.callbacks.Callback):
    """Reports every training step, with the running loss and accuracy of this rank."""

    def __init__(self, report: ReportStep) -> None:
        super().__init__()
        self._report = report
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Remember which epoch this is."""
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Report step `batch` + 1."""
        total_epochs, steps = self.params["epochs"], self.params["steps"]
        shown = ", ".join(f"{name} {float(value):.4f}" for name, value in (logs or {}).items())
        self._report(
            (self._epoch - 1) * steps + batch + 1,
            total_epochs * steps,
            f"steps, epoch {self._epoch}/{total_epochs}: {shown}",
        )


class EpochSeeds(keras.callbacks.Callback):
    """Gives the model's random layers (dropout, say) a state of its own for each epoch and rank.

    So an epoch draws the same numbers whether training came to it in one go or was resumed before it.
    """

    def __init__(self, seed: int, rank: int) -> None:
        super().__init__()
        self._seed = seed
        self._rank = rank

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Set the state of every `SeedGenerator` in the model."""
        states = [variable for variable in self.model.non_trainable_variables if "seed_generator" in variable.path]
        for number, state in enumerate(states):
            # Keras keeps a state as (seed, counter), uint32.
            drawn = np.random.SeedSequence([self._seed, epoch, self._rank, number]).generate_state(1)[0]
            state.assign(np.array([drawn, 0], dtype=np.uint32))


class AverageStatistics(keras.callbacks.Callback):
    """Has all ranks validate, and save, the same moving averages."""

    def on_test_begin(self, logs: Logs = None) -> None:
        """Average them, as the training of the epoch is over."""
        if isinstance(self.model, TrainingModel):
            self.model.average_statistics()
