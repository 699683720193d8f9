"""Which worker reads which rows in which epoch, and in how many steps: plain arithmetic, the same on every worker.

An epoch is one order of all row groups, laid end to end. Each worker takes a stretch of it, all equally long but for
one row, so a row group that lies across a border is read by two workers, each of which keeps its part of the rows.
Nothing is exchanged: every worker computes every worker's stretch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cnnlib.errors import ConfigError


@dataclass(frozen=True)
class Shard:
    """One worker of several: `worker` from 0, of `workers`."""

    worker: int = 0
    workers: int = 1


ALONE = Shard()


@dataclass(frozen=True)
class Stretch:
    """Rows `start` to `stop` (exclusive) of one row group, by its index."""

    row_group: int
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return self.stop - self.start


def worker_rows(rows: int, shard: Shard) -> range:
    """The stretch of an epoch's `rows` that a worker takes.

    >>> [worker_rows(7, Shard(worker, 3)) for worker in range(3)]
    [range(0, 2), range(2, 4), range(4, 7)]
    """
    return range(rows * shard.worker // shard.workers, rows * (shard.worker + 1) // shard.workers)


def steps_per_epoch(rows: int, worker_batch_size: int, workers: int = 1) -> int:
    """The steps that every worker takes in an epoch of `rows`, all workers together.

    As few as take at most `worker_batch_size` rows each on each worker; where they all but do, and fewer rows than
    workers are left, some take one row more instead of all taking a further step.

    Raises ConfigError where there are more workers than rows.

    >>> [steps_per_epoch(rows, worker_batch_size=10, workers=2) for rows in (19, 20, 21, 22, 40)]
    [1, 1, 1, 2, 2]
    """
    if rows < workers:
        raise ConfigError(f"train.workers={workers} exceeds the {rows} rows of a split; lower it")
    whole, rest = divmod(rows, worker_batch_size * workers)
    return max(whole + (rest >= workers), 1)


def step_rows(rows: int, worker_batch_size: int, shard: Shard = ALONE) -> list[int]:
    """The rows of each step that a worker takes in an epoch, all as many but for one row; see `steps_per_epoch`.

    A last step of the few rows that are left would weigh as much as any other: on MNIST, one of 12 images with a rate
    of 0.01 took LeNet from 0.97 to 0.87.

    >>> [step_rows(25, worker_batch_size=10, shard=Shard(worker, 2)) for worker in range(2)]
    [[6, 6], [7, 6]]
    >>> [step_rows(21, worker_batch_size=10, shard=Shard(worker, 2)) for worker in range(2)]
    [[10], [11]]
    """
    steps = steps_per_epoch(rows, worker_batch_size, shard.workers)
    size, larger = divmod(len(worker_rows(rows, shard)), steps)
    return [size + 1] * larger + [size] * (steps - larger)


def epoch_order(row_groups: int, seed: int | None, epoch: int) -> list[int]:
    """The order of the row groups in an epoch (from 0), by index: as published, or shuffled by a seed.

    >>> epoch_order(4, None, epoch=1), sorted(epoch_order(4, 7, epoch=1))
    ([0, 1, 2, 3], [0, 1, 2, 3])
    """
    if seed is None:
        return list(range(row_groups))
    return epoch_random(seed, epoch).permutation(row_groups).tolist()


def epoch_random(seed: int, epoch: int, worker: int | None = None) -> np.random.Generator:
    """A stream of random numbers of its own for each epoch, and each worker in it where one is named."""
    return np.random.default_rng([seed, epoch] if worker is None else [seed, epoch, worker + 1])


def worker_stretches(
    row_group_rows: Sequence[int], seed: int | None, epoch: int, shard: Shard = ALONE
) -> Iterator[Stretch]:
    """What a worker reads in an epoch, in order. `row_group_rows` has the rows of each row group.

    >>> [list(worker_stretches([3, 3], None, 0, Shard(worker, 2))) for worker in range(2)]
    [[Stretch(row_group=0, start=0, stop=3)], [Stretch(row_group=1, start=0, stop=3)]]
    """
    own = worker_rows(sum(row_group_rows), shard)
    begin = 0
    for row_group in epoch_order(len(row_group_rows), seed, epoch):
        rows = row_group_rows[row_group]
        start, stop = max(own.start - begin, 0), min(own.stop - begin, rows)
        if start < stop:
            yield Stretch(row_group, start, stop)
        begin += rows
