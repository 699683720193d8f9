"""Read row groups with petastorm's worker thread, in any given order: one reader serves a whole training.

petastorm's `make_batch_reader` does not fit here. It shuffles by itself. It gives each worker whole row groups, so one
worker gets more rows than another. It ends with the epoch. It waits forever for storage that does not answer.

This reader takes the order from its caller, and every answer has a deadline. One thread is enough: it reads into the
next epoch while the model trains on the last batches of this one.
"""

import os
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pyarrow as pa

from cnnlib.errors import FeedError, first_line
from cnnlib.feed.petastorm import arrow_bridge
from cnnlib.feed.petastorm.arrow_dataset import ParquetDatasetPiece
from cnnlib.feed.petastorm.thread_pool import WholeThreadPool, check_for_stop_less_often
from cnnlib.feed.row_groups import RowGroup, timeout_message
from cnnlib.image_set.contract import IMAGE, LABEL

arrow_bridge.install()

from petastorm.workers_pool import EmptyResultError  # noqa: E402  (the bridge must be in place first)
from petastorm.workers_pool.ventilator import Ventilator  # noqa: E402
from petastorm.workers_pool.worker_base import WorkerBase  # noqa: E402

check_for_stop_less_often()

# One thread returns results in the order of its requests, so the same seed gives the same batches.
READER_THREADS = 1
ROW_GROUPS_AHEAD = 5
# Each row group gives two results: its table, and a message that it is done.
RESULTS_AHEAD = 2 * ROW_GROUPS_AHEAD
# The reader is several row groups ahead, so training may go first. Niceness 10 still gets CPU time beside other
# programs.
READER_NICENESS = 10
# A thread that waits for a file cannot be stopped. After this time it is left behind.
JOIN_SECONDS = 5.0


class RowGroupReader:
    """Read the given row groups, one after the other.

    `row_groups` may be endless: a thread of the reader iterates over it, a few row groups ahead. Opening a reader opens
    no file.
    """

    def __init__(self, filesystem: Any, row_groups: Iterator[RowGroup], timeout_s: float) -> None:
        self._pool = _DeadlinePool(timeout_s)
        self._pool.start(_RowGroupWorker, filesystem, _OrderedVentilator(self._pool.ventilate, row_groups))

    def read(self) -> pa.Table:
        """Return the next row group, with the columns `image` and `label`.

        Raises FeedError if it does not come within `timeout_s` seconds, if it cannot be read, or if the reader was
        stopped.
        """
        try:
            return self._pool.get_results()
        except EmptyResultError:
            raise FeedError("the feed was closed while it was being read") from None

    def stop(self) -> None:
        """Tell the reader's threads to end, without waiting for them."""
        self._pool.stop()

    def join(self) -> None:
        """Wait until the threads have ended, but not for a thread that waits for storage."""
        self._pool.join()


class _DeadlinePool(WholeThreadPool):
    """A thread pool that raises FeedError if a result takes longer than `timeout_s` seconds."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(READER_THREADS, RESULTS_AHEAD)
        self._timeout_s = timeout_s
        self._waiting_since = 0.0
        self._join_seconds = JOIN_SECONDS

    def start(self, *args: Any, **kwargs: Any) -> None:
        super().start(*args, **kwargs)
        if sys.platform == "linux":  # On other systems only whole processes have a priority.
            for thread in self._workers:
                os.setpriority(os.PRIO_PROCESS, thread.native_id, READER_NICENESS)

    def get_results(self) -> Any:
        self._waiting_since = time.monotonic()
        return super().get_results()

    def all_workers_done(self) -> bool:
        """Return whether the data has ended. A waiting `get_results` calls this ten times per second."""
        if time.monotonic() - self._waiting_since > self._timeout_s:
            self._join_seconds = 0.0
            raise FeedError(timeout_message(self._ventilator.reading, self._timeout_s))
        return super().all_workers_done()

    def stop(self) -> None:
        super().stop()
        # This wakes the thread: it checks for the stop only when it has no work, or after it has done some.
        self.ventilate(None)

    def join(self) -> None:
        for thread in self._workers:
            thread.join(self._join_seconds)
        # The pool and its parts refer to each other. Without this, their results would stay in memory until Python's
        # garbage collector runs.
        for results in self._results_queues:
            with suppress(queue.Empty):
                while True:
                    results.get_nowait()


class _OrderedVentilator(Ventilator):
    """Hand out row groups in the given order, at most `ROW_GROUPS_AHEAD` before their results are taken."""

    def __init__(self, ventilate: Any, row_groups: Iterator[RowGroup]) -> None:
        super().__init__(ventilate)
        self._row_groups = row_groups
        self._free_slots = threading.Semaphore(ROW_GROUPS_AHEAD)
        self._handed_out: deque[RowGroup] = deque()
        self._stopped = threading.Event()
        self._all_handed_out = threading.Event()
        self._thread = threading.Thread(target=self._hand_out, name="sparkcnn-feed", daemon=True)

    @property
    def reading(self) -> str:
        """Name of the row group being read, for error messages."""
        return str(self._handed_out[0]) if self._handed_out else "the next row group"

    def start(self) -> None:
        self._thread.start()

    def processed_item(self) -> None:
        self._handed_out.popleft()
        self._free_slots.release()

    def completed(self) -> bool:
        return self._all_handed_out.is_set()

    def stop(self) -> None:
        self._stopped.set()
        self._free_slots.release()
        self._thread.join()

    def _hand_out(self) -> None:
        for group in self._row_groups:
            self._free_slots.acquire()
            if self._stopped.is_set():
                break
            self._handed_out.append(group)
            self._ventilate_fn(group)
        self._all_handed_out.set()


class _RowGroupWorker(WorkerBase):
    """Read a row group in one step. petastorm's own worker opens the file twice and copies every row once more."""

    def __init__(self, worker_id: int, publish: Any, filesystem: Any) -> None:
        super().__init__(worker_id, publish, filesystem)
        self._filesystem = filesystem

    def process(self, group: RowGroup | None) -> None:
        if group is None:
            return
        piece = ParquetDatasetPiece(group.path, self._filesystem.open, group.number)
        try:
            result = piece.read([IMAGE, LABEL])
        except Exception as error:
            # The pool raises a published error in `get_results`. An error raised here would print a stack trace.
            result = FeedError(f"{group} cannot be read: {first_line(error)}; ingest the set again")
        self.publish_func(result)
