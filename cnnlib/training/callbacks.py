"""Callbacks of `fit`: reports with timings, random seeds, statistics of all ranks, and an end to divergence."""

import math
import time
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

from cnnlib.errors import DivergenceError
from cnnlib.feed.data_wait import DataWait
from cnnlib.feed.sharding import worker_rows
from cnnlib.training.ranks import Ranks
from cnnlib.training.training_model import TrainingModel

# (epoch from 1, metrics by name) -> whether training goes on
ReportEpoch = Callable[[int, dict[str, float]], bool]
# (steps done, steps in all epochs, note)
ReportStep = Callable[[int, int, str], None]
# (epoch, step in it), both from 0 -> the ids of the images of that step on this rank
IdsOfStep = Callable[[int, int], Sequence[str]]
Logs = Mapping[str, float] | None

IMAGES_PER_SECOND = "images_per_second"
EPOCH_SECONDS = "epoch_seconds"
STEP_SECONDS = "step_seconds"
DATA_WAIT_SHARE = "data_wait_share"

# In multiples of the loss of guessing. A training with a higher loss never becomes as good as it could have been.
DIVERGED_LOSS = 100.0


def rank_metric(rank: int, name: str) -> str:
    """Return the name of a metric of one rank.

    >>> rank_metric(1, STEP_SECONDS)
    'rank_1/step_seconds'
    """
    return f"rank_{rank}/{name}"


class EpochReport(keras.callbacks.Callback):
    """Report the metrics of each epoch under Keras' names, with its timings. Every rank reports the same.

    `rows` is the number of training images of an epoch. The timings are

    - `images_per_second`: of all ranks together, in training;
    - `step_seconds`: mean over the ranks, in training;
    - `data_wait_share`: fraction (0 to 1) of the training time in which steps waited for data, mean over the ranks;
    - `epoch_seconds`: training and validation.

    With several ranks, the first three are also reported for each rank, as `rank_0/step_seconds` for example.
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
        """Start the clock on all ranks at once, because rank 0 has just written the last epoch's checkpoint."""
        self._ranks.gather([0.0])
        self._data_wait.take()
        self._train_seconds = None
        self._epoch_start = time.monotonic()

    def on_test_begin(self, logs: Logs = None) -> None:
        """Stop the training clock, because validation begins."""
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
    """Report every training step, with the running loss and accuracy of this rank."""

    def __init__(self, report: ReportStep) -> None:
        super().__init__()
        self._report = report
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Remember the epoch."""
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
    """Seed the model's random layers, for example dropout, anew for each epoch and rank.

    So an epoch draws the same numbers in a resumed training as in an uninterrupted one.
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
    """Average the moving averages over all ranks before validation, so that all ranks validate and save the same."""

    def on_test_begin(self, logs: Logs = None) -> None:
        """Average them at the end of the epoch's training."""
        if isinstance(self.model, TrainingModel):
            self.model.average_statistics()


class Divergence(keras.callbacks.Callback):
    """Raise DivergenceError after a step if the epoch's mean loss is NaN or far above the loss of guessing.

    Guessing among `classes` has a loss of ln(classes). `heaviest` is the largest weight of an image in training. The
    error quotes the ids of the step's images.
    """

    def __init__(self, classes: int, ids_of_step: IdsOfStep, heaviest: float = 1.0) -> None:
        super().__init__()
        self._limit = DIVERGED_LOSS * math.log(classes) * max(heaviest, 1.0)
        self._ids_of_step = ids_of_step
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Remember the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Check the loss."""
        loss = float((logs or {})["loss"])
        if loss <= self._limit:
            return
        rate = float(self.model.optimizer.learning_rate)
        ids = self._ids_of_step(self._epoch, batch)
        raise DivergenceError(
            f"the loss is {loss:.4g} after step {batch + 1} of epoch {self._epoch + 1}, with a learning rate of "
            f"{rate:.3g}, which is too high; lower optimizer.learning_rate (--train.find_rate true finds one), or set "
            f"optimizer.clip_norm; the ids of the step's {len(ids)} images follow",
            quoted=ids,
        )
