"""Blocks of rows -> batches, in order or shuffled through a pool that mixes the rows of many blocks."""

from collections.abc import Iterable, Iterator

import numpy as np

# (rows, height, width, channels) uint8 and (rows,) int32
Block = tuple[np.ndarray, np.ndarray]


def in_order(blocks: Iterable[Block], batch_size: int) -> Iterator[Block]:
    """Cut blocks into batches of `batch_size` rows; the last may be smaller.

    >>> blocks = [(np.arange(5), np.arange(5)), (np.arange(5, 7), np.arange(5, 7))]
    >>> [images.tolist() for images, _ in in_order(blocks, 3)]
    [[0, 1, 2], [3, 4, 5], [6]]
    """
    rest: Block | None = None
    for block in blocks:
        rows = block if rest is None else _concatenate([rest, block])
        whole = len(rows[0]) - len(rows[0]) % batch_size
        yield from _cut(rows, 0, whole, batch_size)
        rest = _slice(rows, whole, len(rows[0]))
    if rest is not None:
        yield from _cut(rest, 0, len(rest[0]), batch_size)


def shuffled(blocks: Iterable[Block], batch_size: int, pool_rows: int, random: np.random.Generator) -> Iterator[Block]:
    """Cut blocks into shuffled batches of `batch_size` rows; the last may be smaller.

    Rows wait in a pool of at least `pool_rows`. When it has twice as many, it is permuted and one half leaves in
    batches, so that a row meets those of blocks before and after its own. Every row is given exactly once.
    """
    pool: list[Block] = []
    waiting = 0
    for block in blocks:
        pool.append(block)
        waiting += len(block[0])
        if waiting >= 2 * pool_rows + batch_size:
            rows = _permute(pool, random)
            leaving = (waiting - pool_rows) // batch_size * batch_size
            yield from _cut(rows, 0, leaving, batch_size)
            pool = [_slice(rows, leaving, waiting)]
            waiting -= leaving
    if waiting:
        yield from _cut(_permute(pool, random), 0, waiting, batch_size)


def _concatenate(blocks: list[Block]) -> Block:
    return np.concatenate([images for images, _ in blocks]), np.concatenate([labels for _, labels in blocks])


def _permute(pool: list[Block], random: np.random.Generator) -> Block:
    images, labels = _concatenate(pool)
    pool.clear()  # or its rows would be in memory three times
    order = random.permutation(len(images))
    return images[order], labels[order]


def _slice(rows: Block, start: int, stop: int) -> Block:
    return rows[0][start:stop], rows[1][start:stop]


def _cut(rows: Block, start: int, stop: int, batch_size: int) -> Iterator[Block]:
    for begin in range(start, stop, batch_size):
        yield _slice(rows, begin, min(begin + batch_size, stop))
