"""Find out which images a training step had: repeat the feed's order over the image ids alone.

Training uses it to name the images of the step in which the loss diverged.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, islice

import numpy as np
import pyarrow.parquet as pq

from cnnlib.feed.dataset import DEFAULT_SHUFFLE_MB, rows_in_megabytes
from cnnlib.feed.row_groups import RowGroup, list_row_groups
from cnnlib.feed.sharding import ALONE, Shard, epoch_random, step_rows, worker_slices
from cnnlib.feed.shuffling import Block, mixed
from cnnlib.image_set.contract import IMAGE_ID, ImageSet


def image_ids_of_step(
    image_set: ImageSet,
    split: str,
    *,
    epoch: int,
    step: int,
    worker_batch_size: int,
    seed: int,
    timeout_s: float,
    shuffle_mb: float = DEFAULT_SHUFFLE_MB,
    shard: Shard = ALONE,
) -> list[str]:
    """Return the ids of the images that `make_dataset` yields in one step of an epoch (both from 0), in order.

    The other arguments must equal those of the feed. Only the column of ids is read.
    """
    described = image_set.split(split)
    batch_rows = step_rows(described.rows, worker_batch_size, shard)
    row_groups = list_row_groups(image_set, split, timeout_s)
    pool_rows = min(rows_in_megabytes(shuffle_mb, image_set, described), sum(batch_rows))
    stored = _id_blocks(image_set, row_groups, seed, epoch, shard)
    blocks = mixed(stored, pool_rows, epoch_random(seed, epoch, shard.worker))
    first = sum(batch_rows[:step])
    return list(islice(chain.from_iterable(ids for ids, _ in blocks), first, first + batch_rows[step]))


def _id_blocks(
    image_set: ImageSet, row_groups: Sequence[RowGroup], seed: int, epoch: int, shard: Shard
) -> Iterator[Block]:
    """Yield the blocks of an epoch with image ids instead of images, and zeros as labels."""
    rows = [group.rows for group in row_groups]
    for piece in worker_slices(rows, seed, epoch, shard):
        group = row_groups[piece.row_group]
        with image_set.folder.fs.open(group.path, "rb") as opened:
            ids = pq.ParquetFile(opened).read_row_group(group.number, columns=[IMAGE_ID]).column(IMAGE_ID)
        block = ids.slice(piece.start, piece.rows).to_numpy()
        yield block, np.zeros(len(block), np.int32)
