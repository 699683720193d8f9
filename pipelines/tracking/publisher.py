"""Taking what training leaves to the MLflow run in the background: training never waits for a server.

MLflow tries a call again for about four minutes while its server is away; what waits meanwhile stays in order here.
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
from pipelines.tracking.tracker import PROGRESS_TAG, Tracker

SECONDS_BETWEEN_PROGRESS = 1.0


class Publisher:
    """Uploads each epoch's checkpoint, logs its metrics, and then bounds the checkpoints on the local disk.

    A context manager: at its end everything is in the run, or TrackingError says what is not.
    """

    def __init__(self, tracker: Tracker, checkpoints: Path, keep_last: int) -> None:
        self._tracker = tracker
        self._checkpoints = checkpoints
        self._keep_last = keep_last
        self._epochs: queue.Queue[tuple[int, Path, Mapping[str, float]] | None] = queue.Queue()
        self._progress: dict[str, Any] | None = None
        self._sent: dict[str, Any] | None = None
        self._fault: BaseException | None = None
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
        """Hand over an epoch (from 1). Raises TrackingError where an earlier one could not be published."""
        self._check()
        self._epochs.put((epoch, folder, metrics))

    def tell(self, progress: dict[str, Any]) -> None:
        """Have the run show how far training is. Only the latest counts, and it is sent when there is time."""
        self._progress = progress

    def _check(self) -> None:
        if self._fault is not None:
            raise TrackingError(
                f"the MLflow store {self._tracker.uri} did not take a checkpoint ({first_line(self._fault)}); "
                f"mend it, then go on with --train.resume {self._tracker.run_id}"
            ) from self._fault

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
                self._send_progress()  # epochs may follow one another more quickly than the queue is empty
        except Exception as error:
            self._fault = error

    def _send_progress(self) -> None:
        if self._progress is not self._sent:
            self._sent = self._progress
            # Only for show: what the run must have is published by itself, and fails by itself.
            with suppress(Exception):
                self._tracker.set_tag(PROGRESS_TAG, json.dumps(self._sent))
