"""A thread pool for petastorm's readers that ends exactly when all data has been read.

petastorm 0.13.1 first asks "are all items done?" and then "has everything been handed out?". The thread that hands out
items may do all its work between the two questions. Then both answers are yes, and the reader ends early without an
error. On a busy machine, up to 4 of 10 reads of 12 small row groups lost some or all of them.

A second fault: if one thread waits in `next(reader)` while another stops the reader, the first may wait forever for
items that nobody will read. This can happen under tf.data.

Neither fault depends on Arrow, so every profile needs `WholeThreadPool`; the feed's own pool is a subclass of it.
Readers that petastorm makes with `reader_pool_type="process"` or `"dummy"` still have such faults.
"""

from cnnlib.feed.petastorm import arrow_bridge

arrow_bridge.install()

from petastorm.workers_pool import thread_pool  # noqa: E402  (the bridge must be in place first)
from petastorm.workers_pool.thread_pool import ThreadPool  # noqa: E402

STOP_CHECK_SECONDS = 0.1


class WholeThreadPool(ThreadPool):
    """petastorm's thread pool, which detects the end of the data without the race described above."""

    def all_workers_done(self) -> bool:
        """Return whether every result was taken and none can follow, or the pool was stopped."""
        if self._stop_event.is_set():
            return True
        # Ask this first: the count of finished items shows the end only if the last item was handed out before.
        handed_out = self._ventilator is None or self._ventilator.completed()
        return handed_out and super().all_workers_done()


def check_for_stop_less_often() -> None:
    """Make petastorm's threads check 10 times per second whether to stop, instead of 1,000 times.

    The checks took 2% of a core for each idle reader, and readers are idle for most of a training. New work still wakes
    the threads at once.
    """
    thread_pool.IO_TIMEOUT_INTERVAL_S = STOP_CHECK_SECONDS
