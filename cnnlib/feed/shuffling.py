"""Blocks of rows -> blocks of mixed rows."""

from collections.abc import Iterable, Iterator

import numpy as np

# (rows, height, width, channels) uint8, or (rows,) object of encoded bytes; and (rows,) int32
Block = tuple[np.ndarray, np.ndarray]

# The pool leaves in as many blocks at the end of an epoch.
LAST_BLOCKS = 16


def mixed(blocks: Iterable[Block], pool_rows: int, random: np.random.Generator) -> Iterator[Block]:
    """Mix the rows of many blocks. Every row is given exactly once.

    Rows wait in a pool. Once it has `pool_rows`, each row that comes takes the place of one drawn from all of the
    pool, which leaves. At the end those still there leave in a random order.
    """
    pool: Block | None = None
    waiting = 0
    for block in blocks:
        if pool is None:
            pool = _room_for(pool_rows, like=block)
        rows = len(block[1])
        staying = min(pool_rows - waiting, rows)
        _put(pool, slice(waiting, waiting + staying), _rows(block, slice(staying)))
        waiting += staying
        # A block may be larger than the pool.
        for start in range(staying, rows, pool_rows):
            coming = _rows(block, slice(start, start + pool_rows))
            places = random.choice(pool_rows, len(coming[1]), replace=False)
            leaving = _rows(pool, places)
            _put(pool, places, coming)
            yield leaving
    if pool is not None and waiting:
        for places in np.array_split(random.permutation(waiting), min(LAST_BLOCKS, waiting)):
            yield _rows(pool, places)


def _room_for(rows: int, like: Block) -> Block:
    images, labels = like
    return np.empty((rows, *images.shape[1:]), images.dtype), np.empty(rows, labels.dtype)


def _rows(block: Block, which: slice | np.ndarray) -> Block:
    return block[0][which], block[1][which]


def _put(pool: Block, places: slice | np.ndarray, rows: Block) -> None:
    pool[0][places], pool[1][places] = rows
