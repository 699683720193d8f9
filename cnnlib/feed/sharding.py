"""Decide which rows each worker reads in each epoch, and in how many steps. Plain arithmetic, equal on every worker.

An epoch puts all row groups in one order, end to end. Each worker takes one contiguous range of the rows; the ranges
differ in length by at most one row. If a border falls inside a row group, both neighbours read that row group and each
keeps its own rows. The workers exchange nothing, because every worker can compute every range.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cnnlib.errors import ConfigError


@dataclass(frozen=True)
class Shard:
    """The position of one worker among all: number `worker` (from 0) of `workers`."""

    worker: int = 0
    workers: int = 1


ALONE = Shard()


@dataclass(frozen=True)
class RowSlice:
    """Rows `start` to `stop` (exclusive) of one row group, which is given by its index."""

    row_group: int
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """Number of rows in the slice."""
        return self.stop - self.start


def worker_rows(rows: int, shard: Shard) -> range:
    """Return the range of an epoch's `rows` that one worker reads.

    >>> [worker_rows(7, Shard(worker, 3)) for worker in range(3)]
    [range(0, 2), range(2, 4), range(4, 7)]
    """
    return range(rows * shard.worker // shard.workers, rows * (shard.worker + 1) // shard.workers)


def steps_per_epoch(rows: int, worker_batch_size: int, workers: int = 1) -> int:
    """Return the number of steps that every worker takes in an epoch of `rows` rows over all workers.

    It is the smallest number at which no step of a worker has more than `worker_batch_size` rows. There is one
    exception: if fewer rows than workers remain after the last full step, some steps get one row more, because a
    further step would leave a worker without rows.

    Raises ConfigError if there are more workers than rows.

    >>> [steps_per_epoch(rows, worker_batch_size=10, workers=2) for rows in (19, 20, 21, 22, 40)]
    [1, 1, 1, 2, 2]
    """
    if rows < workers:
        raise ConfigError(f"train.workers={workers} exceeds the {rows} rows of a split; lower train.workers")
    full_steps, rest = divmod(rows, worker_batch_size * workers)
    return max(full_steps + (rest >= workers), 1)


def step_rows(rows: int, worker_batch_size: int, shard: Shard = ALONE) -> list[int]:
    """Return the number of rows in each step that one worker takes in an epoch; see `steps_per_epoch`.

    The steps differ by at most one row. A short last step would weigh as much as any other: on MNIST, a last step of 12
    images at a learning rate of 0.01 took LeNet's accuracy from 0.97 to 0.87.

    >>> [step_rows(25, worker_batch_size=10, shard=Shard(worker, 2)) for worker in range(2)]
    [[6, 6], [7, 6]]
    >>> [step_rows(21, worker_batch_size=10, shard=Shard(worker, 2)) for worker in range(2)]
    [[10], [11]]
    """
    steps = steps_per_epoch(rows, worker_batch_size, shard.workers)
    size, larger = divmod(len(worker_rows(rows, shard)), steps)
    return [size + 1] * larger + [size] * (steps - larger)


def epoch_order(row_groups: int, seed: int | None, epoch: int) -> list[int]:
    """Return the order of the row groups in an epoch (from 0), as indices: shuffled by the seed, or as published.

    >>> epoch_order(4, None, epoch=1), sorted(epoch_order(4, 7, epoch=1))
    ([0, 1, 2, 3], [0, 1, 2, 3])
    """
    if seed is None:
        return list(range(row_groups))
    return epoch_random(seed, epoch).permutation(row_groups).tolist()


def epoch_random(seed: int, epoch: int, worker: int | None = None) -> np.random.Generator:
    """Return a random generator for one epoch, or for one worker in it; each has its own sequence."""
    return np.random.default_rng([seed, epoch] if worker is None else [seed, epoch, worker + 1])


def worker_slices(
    row_group_rows: Sequence[int], seed: int | None, epoch: int, shard: Shard = ALONE
) -> Iterator[RowSlice]:
    """Yield the slices that one worker reads in an epoch, in order.

    `row_group_rows` has the number of rows of each row group.

    >>> [list(worker_slices([3, 3], None, 0, Shard(worker, 2))) for worker in range(2)]
    [[RowSlice(row_group=0, start=0, stop=3)], [RowSlice(row_group=1, start=0, stop=3)]]
    """
    own = worker_rows(sum(row_group_rows), shard)
    first = 0
    for row_group in epoch_order(len(row_group_rows), seed, epoch):
        rows = row_group_rows[row_group]
        start, stop = max(own.start - first, 0), min(own.stop - first, rows)
        if start < stop:
            yield RowSlice(row_group, start, stop)
        first += rows
