"""What training tells while it runs."""

import time
from collections.abc import Callable, Mapping

import keras

# (epoch from 1, metrics by name)
ReportEpoch = Callable[[int, dict[str, float]], None]
# (steps done, steps an epoch, note)
ReportStep = Callable[[int, int, str], None]

IMAGES_PER_SECOND = "images_per_second"
EPOCH_SECONDS = "epoch_seconds"


class EpochReport(keras.callbacks.Callback):
    """Reports an epoch's metrics as Keras names them, with its seconds and its training images/s.

    `epoch_seconds` takes in validation; `images_per_second` does not. `rows` are the images an epoch trains on.
    """

    def __init__(self, rows: int, report: ReportEpoch) -> None:
        super().__init__()
        self._rows = rows
        self._report = report
        self._epoch_start = 0.0
        self._train_seconds = 0.0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Start the clock."""
        self._epoch_start = time.monotonic()

    def on_test_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Stop the training clock: `fit` validates from here on."""
        self._train_seconds = time.monotonic() - self._epoch_start

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Report the epoch."""
        metrics = {name: float(value) for name, value in (logs or {}).items()}
        metrics[EPOCH_SECONDS] = time.monotonic() - self._epoch_start
        metrics[IMAGES_PER_SECOND] = self._rows / self._train_seconds
        self._report(epoch + 1, metrics)


class StepReport(keras.callbacks.Callback):
    """Reports every training step, with the running loss and accuracy."""

    def __init__(self, report: ReportStep) -> None:
        super().__init__()
        self._report = report
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Remember which epoch this is."""
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Report step `batch` + 1."""
        total_epochs, steps = self.params["epochs"], self.params["steps"]
        shown = ", ".join(f"{name} {float(value):.4f}" for name, value in (logs or {}).items())
        self._report(
            (self._epoch - 1) * steps + batch + 1,
            total_epochs * steps,
            f"steps, epoch {self._epoch}/{total_epochs}: {shown}",
        )
