"""Which images a step of training had: the feed's order gone through again, over the ids alone."""

from collections.abc import Iterator, Sequence
from itertools import chain, islice

import numpy as np
import pyarrow.parquet as pq

from cnnlib.feed.dataset import DEFAULT_SHUFFLE_MB, rows_in
from cnnlib.feed.row_groups import RowGroup, read_row_groups
from cnnlib.feed.sharding import ALONE, Shard, epoch_random, step_rows, worker_stretches
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
    """The ids of the images that `make_dataset` gives in a step of an epoch (both from 0), in their order.

    The other arguments are those of the feed. Reads nothing of the images but their ids.
    """
    described = image_set.split(split)
    own_steps = step_rows(described.rows, worker_batch_size, shard)
    row_groups = read_row_groups(image_set, split, timeout_s)
    pool_rows = min(rows_in(shuffle_mb, image_set, described), sum(own_steps))
    stored = _ids(image_set, row_groups, seed, epoch, shard)
    blocks = mixed(stored, pool_rows, epoch_random(seed, epoch, shard.worker))
    first = sum(own_steps[:step])
    return list(islice(chain.from_iterable(ids for ids, _ in blocks), first, first + own_steps[step]))


def _ids(image_set: ImageSet, row_groups: Sequence[RowGroup], seed: int, epoch: int, shard: Shard) -> Iterator[Block]:
    """The blocks of an epoch with ids in the place of images."""
    rows = [group.rows for group in row_groups]
    for stretch in worker_stretches(rows, seed, epoch, shard):
        group = row_groups[stretch.row_group]
        with image_set.folder.fs.open(group.path, "rb") as opened:
            ids = pq.ParquetFile(opened).read_row_group(group.number, columns=[IMAGE_ID]).column(IMAGE_ID)
        block = ids.slice(stretch.start, stretch.rows).to_numpy()
        yield block, np.zeros(len(block), np.int32)
