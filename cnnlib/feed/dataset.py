"""An image set's split -> tf.data, through petastorm: every row exactly once an epoch, over all workers."""

import itertools
import math
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager

import tensorflow as tf

from cnnlib.errors import FeedError, first_line
from cnnlib.feed.blocks import DEFAULT_TIMEOUT_S, BlockStreams
from cnnlib.feed.data_wait import DataWait
from cnnlib.feed.decoding import decode_batches, is_decoding
from cnnlib.feed.row_groups import read_row_groups
from cnnlib.feed.sharding import ALONE, Shard, epoch_random, step_rows
from cnnlib.feed.shuffling import Block, mixed
from cnnlib.image_set.contract import ImageSet, Split

DEFAULT_SHUFFLE_MB = 128.0
# A block is a row group, or a sixteenth of the pool.
BLOCKS_AHEAD = 4
BATCHES_AHEAD = 8


@contextmanager
def make_dataset(
    image_set: ImageSet,
    split: str,
    *,
    worker_batch_size: int = 128,
    seed: int | None = None,
    shuffle_mb: float = DEFAULT_SHUFFLE_MB,
    shard: Shard = ALONE,
    first_epoch: int = 0,
    repeat: bool = False,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    data_wait: DataWait | None = None,
) -> Iterator[tf.data.Dataset]:
    """Give a split as tf.data: (images (batch, height, width, channels) uint8, labels (batch,) int32).

    Each pass over the data set is an epoch, the first is number `first_epoch` (from 0); with `repeat` one pass holds
    them all, without end. Over all workers of `shard` an epoch has every row exactly once. Every worker takes
    `steps_per_epoch` steps, the data set's cardinality, of equal sizes but for one row; see `step_rows`.

    With a `seed`, row groups are shuffled and rows mixed in a pool of at least `shuffle_mb` megabytes, in another
    order each epoch; the same seed and number of workers give the same batches. Without one they come as published.
    Up to twice the pool is in memory.
    `data_wait` measures how long the taker waits. At the end of the `with` block every reader is closed.

    Raises ImageSetError for a split without images, ConfigError for more workers than rows, FeedError where a file is
    damaged or gives no data for `timeout_s` seconds.
    """
    described = image_set.split(split)
    own_steps = step_rows(described.rows, worker_batch_size, shard)
    row_groups = read_row_groups(image_set, split, timeout_s)
    pool_rows = min(rows_in(shuffle_mb, image_set, described), sum(own_steps))
    epochs = itertools.count(first_epoch)
    streams = BlockStreams(image_set, row_groups, seed=seed, shard=shard, timeout_s=timeout_s)
    faults: list[FeedError] = []

    def one_epoch() -> Iterator[Block]:
        epoch = next(epochs)
        try:
            with closing(streams.epoch(epoch)) as blocks:
                yield from (
                    blocks if seed is None else mixed(blocks, pool_rows, epoch_random(seed, epoch, shard.worker))
                )
        except Exception as error:
            fault = error if isinstance(error, FeedError) else FeedError(f"{image_set.folder.uri}: {first_line(error)}")
            faults.append(fault)
            del fault
            raise

    blocks = tf.data.Dataset.from_generator(one_epoch, output_signature=signature(image_set))
    if repeat:
        # Before all else, so that the pool of the next epoch is filled while the last of this one are trained on.
        blocks = blocks.repeat()
    # Cut in tf.data: whatever a generator yields costs as much as the copying of a hundred images. The sizes are gone
    # through anew each epoch.
    stored = blocks.prefetch(BLOCKS_AHEAD).rebatch(own_steps)
    steps = tf.data.INFINITE_CARDINALITY if repeat else len(own_steps)
    stored = stored.apply(tf.data.experimental.assert_cardinality(steps))
    dataset = decode_batches(stored, image_set.image).prefetch(BATCHES_AHEAD).with_options(_own_threads())
    try:
        # tf.data may be inside the generators of passes that were given up midway, so only the readers can be closed.
        with closing(streams):
            yield dataset if data_wait is None else data_wait.measured(dataset)
    except tf.errors.OpError as error:
        # tf.data makes its own error of whatever its generator raises.
        if not faults:
            if not is_decoding(error):
                raise
            encoding = image_set.image.encoding.upper()
            faults.append(FeedError(f"{image_set.folder.uri} has an image that is no {encoding}; ingest it anew"))
        # Neither the frames of TensorFlow's error nor a cycle through `faults` may keep the iterator: Python would end
        # with its threads in the generator above, and TensorFlow would wait for them for ever.
        raise faults.pop(0) from error.with_traceback(None)


def _own_threads() -> tf.data.Options:
    """Threads enough that none who takes what is ready waits for one who waits for storage.

    TensorFlow has one of its own for each processor that it may use: with one processor, the generator above and the
    clocks of `data_wait` would share it.
    """
    options = tf.data.Options()
    # With more processors there are threads enough, and TensorFlow 2.18 waits for threads of its own when it ends.
    if _processors() == 1:
        options.threading.private_threadpool_size = 3
    return options


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def rows_in(megabytes: float, image_set: ImageSet, split: Split) -> int:
    """How many images of a split, as stored, have that size together; at least one."""
    image_bytes = image_set.image.size_bytes
    if image_set.image.encoding != "raw":
        image_bytes = math.ceil(sum(file.bytes for file in split.files) / split.rows)
    return math.ceil(megabytes * 2**20 / image_bytes)


def signature(image_set: ImageSet) -> tuple[tf.TensorSpec, tf.TensorSpec]:
    """The types of a `Block`."""
    if image_set.image.encoding == "raw":
        images = tf.TensorSpec((None, *image_set.image.shape), tf.uint8)
    else:
        images = tf.TensorSpec((None,), tf.string)
    return images, tf.TensorSpec((None,), tf.int32)
