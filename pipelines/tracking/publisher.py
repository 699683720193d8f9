"""Send checkpoints and metrics to the MLflow run in the background, so that training never waits for a server.

While its server is away, MLflow tries a call again for about four minutes. Later epochs wait here, in order.
"""

import json
import queue
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cnnlib.errors import TrackingError, first_line
from cnnlib.training.checkpoints import remove_checkpoints
from pipelines.tracking.tracker import PROGRESS, Tracker

SECONDS_BETWEEN_PROGRESS = 1.0


class Publisher:
    """Uploads the checkpoint of each epoch, logs its metrics, and then removes old checkpoints from the local disk.

    Use it as a context manager. When the body ends, everything is in the run, or TrackingError says what is missing.
    """

    def __init__(self, tracker: Tracker, checkpoints: Path, keep_last: int) -> None:
        self._tracker = tracker
        self._checkpoints = checkpoints
        self._keep_last = keep_last
        self._epochs: queue.Queue[tuple[int, Path, Mapping[str, float]] | None] = queue.Queue()
        self._progress: dict[str, Any] | None = None
        self._sent: dict[str, Any] | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="sparkcnn-publisher", daemon=True)

    def __enter__(self) -> "Publisher":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._epochs.put(None)
        self._thread.join()
        if kind is None:
            self._check()

    def publish(self, epoch: int, folder: Path, metrics: Mapping[str, float]) -> None:
        """Queue an epoch (from 1) for upload. Raises TrackingError if an earlier epoch could not be published."""
        self._check()
        self._epochs.put((epoch, folder, metrics))

    def show_progress(self, progress: dict[str, Any]) -> None:
        """Show in the run how far training is. Only the latest value counts: it is sent after a second or an epoch."""
        self._progress = progress

    def _check(self) -> None:
        if self._error is not None:
            raise TrackingError(
                f"the MLflow store {self._tracker.uri} did not accept a checkpoint ({first_line(self._error)}); "
                f"repair the store, then continue with --train.resume {self._tracker.run_id}"
            ) from self._error

    def _work(self) -> None:
        try:
            while True:
                try:
                    work = self._epochs.get(timeout=SECONDS_BETWEEN_PROGRESS)
                except queue.Empty:
                    self._send_progress()
                    continue
                if work is None:
                    self._send_progress()  # the last epoch's line
                    return
                epoch, folder, metrics = work
                self._tracker.log_checkpoint(epoch, folder)
                self._tracker.log_epoch(epoch, metrics)
                remove_checkpoints(self._checkpoints, up_to=epoch - self._keep_last)
                self._send_progress()  # with short epochs the queue may never be empty
        except Exception as error:
            self._error = error

    def _send_progress(self) -> None:
        if self._progress is not self._sent:
            self._sent = self._progress
            # Progress is only shown. Whatever the run must have is published elsewhere, and raises its own errors.
            with suppress(Exception):
                self._tracker.set_tag(PROGRESS, value=json.dumps(self._sent))
