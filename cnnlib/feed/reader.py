"""petastorm's reader over row groups in whatever order is asked for: one reader for a whole training.

`make_batch_reader` shuffles by itself, gives each worker whole row groups (so one worker gets more rows than
another) and ends with the epoch. Here the order is given, so one reader with one thread reads on into the next
epoch while the last batches of this one are trained on.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from cnnlib.errors import FeedError, first_line
from cnnlib.feed import arrow_bridge
from cnnlib.feed.row_groups import RowGroup
from cnnlib.feed.thread_pool import WholeThreadPool
from cnnlib.imageset import IMAGE, LABEL

arrow_bridge.install()

from petastorm.arrow_reader_worker import ArrowReaderWorker  # noqa: E402  (the bridge must be in place first)
from petastorm.reader import Reader  # noqa: E402
from petastorm.workers_pool import EmptyResultError  # noqa: E402
from petastorm.workers_pool.ventilator import Ventilator  # noqa: E402

# Results come in the order asked for, so the same seed gives the same batches, from one thread only.
READER_THREADS = 1
# The fewest that petastorm keeps.
ROW_GROUPS_AHEAD = 5
# A thread that waits for a file cannot be stopped, only left behind.
JOIN_SECONDS = 5.0


class RowGroupReader(Reader):
    """Reads the row groups asked for, one after the other, each as an Arrow table of `image` and `label`.

    `asked` gives indices into `row_groups` and may be endless; a thread of the reader's own goes through it, a few
    row groups ahead. Iterating raises FeedError when nothing came for `timeout_s` seconds, or a file is damaged.
    """

    def __init__(self, filesystem: Any, row_groups: Sequence[RowGroup], asked: Iterator[int], timeout_s: float) -> None:
        self._row_groups = row_groups
        self._asked = asked
        super().__init__(
            filesystem,
            list(dict.fromkeys(group.path for group in row_groups)),
            schema_fields=[f"^{IMAGE}$", f"^{LABEL}$"],
            worker_class=_TableWorker,
            reader_pool=_DeadlinePool(timeout_s),
            is_batched_reader=True,
        )

    def _filter_row_groups(self, dataset: Any, row_groups: Sequence[Any], *_: Any) -> tuple[list[int], None]:
        """petastorm's hook for choosing what to read; it keeps the row groups in an order of its own."""
        self._petastorm_index = {(piece.path, piece.row_group): index for index, piece in enumerate(row_groups)}
        return list(range(len(row_groups))), None

    def _create_ventilator(self, *_: Any) -> Ventilator:
        return _InOrder(self._workers_pool.ventilate, self._items())

    def _items(self) -> Iterator[tuple[RowGroup, dict[str, Any]]]:
        for index in self._asked:
            group = self._row_groups[index]
            yield (
                group,
                {
                    "piece_index": self._petastorm_index[group.path, group.number],
                    "worker_predicate": None,
                    "shuffle_row_drop_partition": (0, 1),
                },
            )

    def end(self) -> None:
        """Stop the reader's threads and wait for them, but not for one that a file system never answers."""
        self.stop()
        for thread in self._workers_pool.threads:
            thread.join(JOIN_SECONDS)


class _DeadlinePool(WholeThreadPool):
    """A pool whose results must come in time."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(READER_THREADS, ROW_GROUPS_AHEAD)
        self._timeout_s = timeout_s
        self._waiting_since = 0.0

    @property
    def threads(self) -> Sequence[threading.Thread]:
        return self._workers

    def get_results(self) -> Any:
        self._waiting_since = time.monotonic()
        return super().get_results()

    def all_workers_done(self) -> bool:
        """Asked every tenth of a second by a `get_results` that waits."""
        if time.monotonic() - self._waiting_since > self._timeout_s:
            raise FeedError(
                f"no data came for data.timeout_s={self._timeout_s:g} s while reading {self._ventilator.reading}; "
                "check that file's storage, or raise the setting"
            )
        return super().all_workers_done()


class _InOrder(Ventilator):
    """Hands items out in their order, as many at a time as the pool keeps results."""

    def __init__(self, ventilate: Any, items: Iterator[tuple[RowGroup, dict[str, Any]]]) -> None:
        super().__init__(ventilate)
        self._items = items
        self._room = threading.Semaphore(ROW_GROUPS_AHEAD)
        self._under_way: deque[RowGroup] = deque()
        self._stopped = threading.Event()
        self._all_out = threading.Event()
        self._thread = threading.Thread(target=self._hand_out, name="sparkcnn-feed", daemon=True)

    @property
    def reading(self) -> RowGroup | str:
        """The row group that a result is waited for."""
        return self._under_way[0] if self._under_way else "its first row group"

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
        for group, item in self._items:
            self._room.acquire()
            if self._stopped.is_set():
                break
            self._under_way.append(group)
            self._ventilate_fn(**item)
        self._all_out.set()


class _TableQueue:
    """Hands on the tables as they are: petastorm's own makes a Python object of every image."""

    batched_output = True

    def read_next(self, pool: _DeadlinePool, schema: Any, ngram: Any) -> pa.Table:
        try:
            return pool.get_results()
        except EmptyResultError:
            raise StopIteration from None
        except FeedError:
            raise
        except Exception as error:
            raise FeedError(f"a row group cannot be read: {first_line(error)}; ingest the set anew") from error


class _TableWorker(ArrowReaderWorker):
    @staticmethod
    def new_results_queue_reader() -> _TableQueue:
        return _TableQueue()
