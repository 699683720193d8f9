"""Mix the rows of a stream of blocks."""

from collections.abc import Iterable, Iterator

import numpy as np

# (images, labels): images are (rows, height, width, channels) uint8, or (rows,) object of encoded bytes; labels are
# (rows,) int32.
Block = tuple[np.ndarray, np.ndarray]

# At the end of an epoch the pool is emptied in this many blocks.
LAST_BLOCKS = 16


def mixed(blocks: Iterable[Block], pool_rows: int, random: np.random.Generator) -> Iterator[Block]:
    """Yield all rows of the blocks exactly once, in a mixed order.

    Rows wait in a pool of `pool_rows` rows. When the pool is full, each new row replaces a randomly chosen one, and the
    replaced row is yielded. At the end the rest of the pool is yielded in random order.

    >>> numbers = [(np.arange(start, start + 4), np.zeros(4)) for start in range(0, 12, 4)]
    >>> rows = np.concatenate([images for images, _ in mixed(numbers, 6, np.random.default_rng(0))])
    >>> sorted(rows.tolist()) == list(range(12)), rows.tolist() == list(range(12))
    (True, False)
    """
    pool: Block | None = None
    pooled = 0
    for block in blocks:
        if pool is None:
            pool = _empty_pool(pool_rows, like=block)
        rows = len(block[1])
        added = min(pool_rows - pooled, rows)
        _store(pool, slice(pooled, pooled + added), _rows(block, slice(added)))
        pooled += added
        # A block may have more rows than the pool.
        for start in range(added, rows, pool_rows):
            incoming = _rows(block, slice(start, start + pool_rows))
            replaced = random.choice(pool_rows, len(incoming[1]), replace=False)
            outgoing = _rows(pool, replaced)
            _store(pool, replaced, incoming)
            yield outgoing
    if pool is not None and pooled:
        for rest in np.array_split(random.permutation(pooled), min(LAST_BLOCKS, pooled)):
            yield _rows(pool, rest)


def _empty_pool(rows: int, like: Block) -> Block:
    images, labels = like
    return np.empty((rows, *images.shape[1:]), images.dtype), np.empty(rows, labels.dtype)


def _rows(block: Block, which: slice | np.ndarray) -> Block:
    return block[0][which], block[1][which]


def _store(pool: Block, which: slice | np.ndarray, rows: Block) -> None:
    pool[0][which], pool[1][which] = rows
