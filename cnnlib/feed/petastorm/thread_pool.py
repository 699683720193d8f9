"""A thread pool for petastorm's readers that ends when the data ends: not before, and not never.

petastorm 0.13.1 asks "are all items done?" and then "has everything been handed out?". The thread that hands
items out may do all its work between the two questions. Then both answers are yes, and the reader ends early,
without an error: on a busy machine up to 4 of 10 reads of 12 small row groups lost some of them, or all.
And a thread that waits in `next(reader)` while another stops the reader, as can happen under tf.data, may
wait for ever for items that will not be done.

Neither has to do with Arrow, so every profile needs `WholeThreadPool`. The feed's pool is a subclass of it;
`use_whole_thread_pool()` gives it to readers that petastorm makes itself. Those with `reader_pool_type="process"` or
`"dummy"` keep such faults.
"""

from cnnlib.feed.petastorm import arrow_bridge

arrow_bridge.install()

import petastorm.reader  # noqa: E402  (the bridge must be in place first)
from petastorm.workers_pool import thread_pool  # noqa: E402
from petastorm.workers_pool.thread_pool import ThreadPool  # noqa: E402

LOOK_SECONDS = 0.1


class WholeThreadPool(ThreadPool):
    """petastorm's thread pool, with the end of data decided in the right order."""

    def all_workers_done(self) -> bool:
        """Whether no result is left nor to come, or the pool was stopped."""
        if self._stop_event.is_set():
            return True
        # The count of items that are done means the end only if the last item was handed out before counting.
        handed_out = self._ventilator is None or self._ventilator.completed()
        return handed_out and super().all_workers_done()


def use_whole_thread_pool() -> None:
    """Have `make_batch_reader` and `make_reader` use this pool for `reader_pool_type="thread"`."""
    petastorm.reader.ThreadPool = WholeThreadPool


def look_less_often() -> None:
    """Have petastorm's threads look 10 times a second whether they are to stop, not 1,000 times.

    That took 2% of a core for each reader that has nothing to do, which is most of a training. Work wakes them at once.
    """
    thread_pool.IO_TIMEOUT_INTERVAL_S = LOOK_SECONDS
