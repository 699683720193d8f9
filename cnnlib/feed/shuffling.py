"""Blocks of rows -> mixed blocks -> batches."""

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

# (rows, height, width, channels) uint8, or (rows,) object of encoded bytes; and (rows,) int32
Block = tuple[np.ndarray, np.ndarray]


def mixed(blocks: Iterable[Block], pool_rows: int, random: np.random.Generator) -> Iterator[Block]:
    """Mix the rows of many blocks. Every row is given exactly once.

    Rows wait in a pool of at least `pool_rows`. When it has twice as many, it is permuted and all but `pool_rows`
    leave, so that a row meets those of blocks before and after its own.
    """
    pool: list[Block] = []
    waiting = 0
    for block in blocks:
        pool.append(block)
        waiting += len(block[1])
        if waiting > 2 * pool_rows:
            rows = _permute(pool, random)
            yield _slice(rows, pool_rows, waiting)
            pool = [_slice(rows, 0, pool_rows)]
            waiting = pool_rows
    if waiting:
        yield _permute(pool, random)


def batches(blocks: Iterable[Block], batch_size: int, steps: int) -> Iterator[Block]:
    """Cut blocks into `steps` batches of `batch_size` rows; the last has whatever is left, more or fewer.

    >>> blocks = [(np.arange(5), np.arange(5)), (np.arange(5, 7), np.arange(5, 7))]
    >>> [images.tolist() for images, _ in batches(blocks, 3, steps=3)]
    [[0, 1, 2], [3, 4, 5], [6]]
    >>> [images.tolist() for images, _ in batches(blocks, 3, steps=2)]
    [[0, 1, 2], [3, 4, 5, 6]]
    """
    waiting: deque[Block] = deque()
    rows = given = 0
    for block in blocks:
        waiting.append(block)
        rows += len(block[1])
        while rows >= batch_size and given < steps - 1:
            yield _take(waiting, batch_size)
            rows -= batch_size
            given += 1
    if rows:
        yield _take(waiting, rows)


def _permute(pool: list[Block], random: np.random.Generator) -> Block:
    """The pool's rows in a random order. Empties the pool on the way, or its rows would be in memory twice."""
    total = sum(len(labels) for _, labels in pool)
    images = np.empty((total, *pool[0][0].shape[1:]), pool[0][0].dtype)
    labels = np.empty(total, pool[0][1].dtype)
    places = random.permutation(total)
    start = 0
    for block_images, block_labels in _emptying(pool):
        to = places[start : start + len(block_labels)]
        images[to], labels[to] = block_images, block_labels
        start += len(to)
    return images, labels


def _emptying(pool: list[Block]) -> Iterator[Block]:
    pool.reverse()
    while pool:
        yield pool.pop()


def _take(waiting: deque[Block], rows: int) -> Block:
    """Take rows off the front: a view where they lie in one block."""
    taken: list[Block] = []
    while rows:
        block = waiting.popleft()
        if len(block[1]) > rows:
            waiting.appendleft(_slice(block, rows, len(block[1])))
            block = _slice(block, 0, rows)
        taken.append(block)
        rows -= len(block[1])
    if len(taken) == 1:
        return taken[0]
    return np.concatenate([images for images, _ in taken]), np.concatenate([labels for _, labels in taken])


def _slice(rows: Block, start: int, stop: int) -> Block:
    return rows[0][start:stop], rows[1][start:stop]
