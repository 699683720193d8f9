"""petastorm's reading thread over row groups in whatever order is asked for: one reader for a whole training.

`make_batch_reader` shuffles by itself, gives each worker whole row groups (so one worker gets more rows than another),
ends with the epoch, and waits for ever for storage that does not answer. Here the order is given and every answer has
a deadline, so one reader with one thread reads on into the next epoch while the last batches of this one are trained
on.
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
from cnnlib.feed.petastorm.thread_pool import WholeThreadPool, look_less_often
from cnnlib.feed.row_groups import RowGroup, no_data_came
from cnnlib.image_set.contract import IMAGE, LABEL

arrow_bridge.install()

from petastorm.workers_pool import EmptyResultError  # noqa: E402  (the bridge must be in place first)
from petastorm.workers_pool.ventilator import Ventilator  # noqa: E402
from petastorm.workers_pool.worker_base import WorkerBase  # noqa: E402

look_less_often()

# Results come in the order asked for, so the same seed gives the same batches, from one thread only.
READER_THREADS = 1
ROW_GROUPS_AHEAD = 5
# Of each row group there is a table, and a message that it is done.
RESULTS_AHEAD = 2 * ROW_GROUPS_AHEAD
# Reading is ahead by several row groups, so training goes first; 10 still has its share beside other programs.
READER_NICENESS = 10
# A thread that waits for a file cannot be stopped, only left behind.
JOIN_SECONDS = 5.0


class RowGroupReader:
    """Reads the row groups asked for, one after the other.

    `asked` may be endless; a thread of the reader's own goes through it, a few row groups ahead. Opening a reader
    opens no file.
    """

    def __init__(self, filesystem: Any, asked: Iterator[RowGroup], timeout_s: float) -> None:
        self._pool = _DeadlinePool(timeout_s)
        self._pool.start(_RowGroupWorker, filesystem, _InOrder(self._pool.ventilate, asked))

    def read(self) -> pa.Table:
        """Give the next row group: `image` and `label`.

        Raises FeedError when it did not come for `timeout_s` seconds, cannot be read, or the reader was stopped.
        """
        try:
            return self._pool.get_results()
        except EmptyResultError:
            raise FeedError("the feed was closed while data was asked of it") from None

    def stop(self) -> None:
        """Have the reader's threads end, without waiting for them."""
        self._pool.stop()

    def join(self) -> None:
        """Wait for the threads, but not for one that a file system never answers."""
        self._pool.join()


class _DeadlinePool(WholeThreadPool):
    """A pool whose results must come in time."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(READER_THREADS, RESULTS_AHEAD)
        self._timeout_s = timeout_s
        self._waiting_since = 0.0
        self._join_seconds = JOIN_SECONDS

    def start(self, *args: Any, **kwargs: Any) -> None:
        super().start(*args, **kwargs)
        if sys.platform == "linux":  # elsewhere priorities are of whole processes
            for thread in self._workers:
                os.setpriority(os.PRIO_PROCESS, thread.native_id, READER_NICENESS)

    def get_results(self) -> Any:
        self._waiting_since = time.monotonic()
        return super().get_results()

    def all_workers_done(self) -> bool:
        """Asked every tenth of a second by a `get_results` that waits."""
        if time.monotonic() - self._waiting_since > self._timeout_s:
            self._join_seconds = 0.0
            raise FeedError(no_data_came(self._ventilator.reading, self._timeout_s))
        return super().all_workers_done()

    def stop(self) -> None:
        super().stop()
        # Wakes the thread: it looks for the stop only when it has no work, or has done some.
        self.ventilate(None)

    def join(self) -> None:
        for thread in self._workers:
            thread.join(self._join_seconds)
        # The pool and its parts refer to each other, so what it holds would stay until Python next looks for cycles.
        for results in self._results_queues:
            with suppress(queue.Empty):
                while True:
                    results.get_nowait()


class _InOrder(Ventilator):
    """Hands row groups out in their order, as many at a time as the pool keeps results."""

    def __init__(self, ventilate: Any, asked: Iterator[RowGroup]) -> None:
        super().__init__(ventilate)
        self._asked = asked
        self._room = threading.Semaphore(ROW_GROUPS_AHEAD)
        self._under_way: deque[RowGroup] = deque()
        self._stopped = threading.Event()
        self._all_out = threading.Event()
        self._thread = threading.Thread(target=self._hand_out, name="sparkcnn-feed", daemon=True)

    @property
    def reading(self) -> str:
        """What a result is waited for of."""
        return str(self._under_way[0]) if self._under_way else "the next row group"

    def start(self) -> None:
        self._thread.start()

    def processed_item(self) -> None:
        self._under_way.popleft()
        self._room.release()

    def completed(self) -> bool:
        return self._all_out.is_set()

    def stop(self) -> None:
        self._stopped.set()
        self._room.release()
        self._thread.join()

    def _hand_out(self) -> None:
        for group in self._asked:
            self._room.acquire()
            if self._stopped.is_set():
                break
            self._under_way.append(group)
            self._ventilate_fn(group)
        self._all_out.set()


class _RowGroupWorker(WorkerBase):
    """Reads a row group in one go. petastorm's own worker opens the file twice, and copies every row once more."""

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
            # The pool raises it where results are taken. Were it raised here, a stack trace would be printed.
            result = FeedError(f"{group} cannot be read: {first_line(error)}; ingest the set anew")
        self.publish_func(result)
