"""An image set's split -> tf.data, through petastorm: every row exactly once an epoch, over all workers."""

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

from cnnlib.errors import FeedError
from cnnlib.feed.blocks import DEFAULT_TIMEOUT_S, BlockStream
from cnnlib.feed.data_wait import DataWait
from cnnlib.feed.decoding import decode_batches
from cnnlib.feed.row_groups import read_row_groups
from cnnlib.feed.sharding import Shard, epoch_random, steps_per_epoch
from cnnlib.feed.shuffling import Block, batches, mixed
from cnnlib.imageset import ImageSet

DEFAULT_SHUFFLE_MB = 128.0
BATCHES_AHEAD = 8


@contextmanager
def make_dataset(
    image_set: ImageSet,
    split: str,
    *,
    worker_batch_size: int = 128,
    seed: int | None = None,
    shuffle_mb: float = DEFAULT_SHUFFLE_MB,
    shard: Shard = Shard(),
    first_epoch: int = 0,
    repeat: bool = False,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    data_wait: DataWait | None = None,
) -> Iterator[tf.data.Dataset]:
    """Give a split as tf.data: (images (batch, height, width, channels) uint8, labels (batch,) int32).

    Each pass over the data set is an epoch, the first is number `first_epoch` (from 0); with `repeat` one pass holds
    them all, without end. Over all workers of `shard` an epoch has every row exactly once. Every worker takes
    `steps_per_epoch` steps, the data set's cardinality; the rows of an incomplete last step are divided evenly, and
    where they are fewer than the workers, the step before takes them.

    With a `seed`, row groups are shuffled and rows mixed in a pool of at least `shuffle_mb` megabytes, in another
    order each epoch; the same seed and number of workers give the same batches. Without one they come as published.
    `data_wait` measures how long the taker waits. At the end of the `with` block every reader is closed.

    Raises ImageSetError for a split without images, ConfigError for more workers than rows, FeedError where a file is
    damaged or gives no data for `timeout_s` seconds.
    """
    described = image_set.split(split)
    row_groups = list(read_row_groups(image_set, split))
    steps = steps_per_epoch(described.rows, worker_batch_size, shard.workers)
    stored_bytes = image_set.image.size_bytes
    if image_set.image.encoding != "raw":
        stored_bytes = math.ceil(sum(file.bytes for file in described.files) / described.rows)
    pool_rows = math.ceil(shuffle_mb * 2**20 / stored_bytes)
    epochs = itertools.count(first_epoch)
    streams: list[BlockStream] = []
    idle: list[BlockStream] = []
    faults: list[FeedError] = []

    def stream_at(epoch: int) -> BlockStream:
        for stream in idle:
            if stream.next_epoch == epoch:
                idle.remove(stream)
                return stream
        stream = BlockStream(
            image_set, split, row_groups=row_groups, seed=seed, shard=shard, first_epoch=epoch, timeout_s=timeout_s
        )
        streams.append(stream)
        return stream

    def one_epoch() -> Iterator[Block]:
        epoch = next(epochs)
        try:
            stream = stream_at(epoch)
            blocks = stream.epoch()
            if seed is not None:
                blocks = mixed(blocks, pool_rows, epoch_random(seed, epoch, shard.worker))
            yield from batches(blocks, worker_batch_size, steps)
            idle.append(stream)
        except Exception as error:
            fault = error if isinstance(error, FeedError) else FeedError(f"{image_set.folder.uri}: {error}")
            faults.append(fault)
            raise

    stored = tf.TensorSpec((None, *image_set.image.shape), tf.uint8)
    if image_set.image.encoding != "raw":
        stored = tf.TensorSpec((None,), tf.string)
    dataset = tf.data.Dataset.from_generator(
        one_epoch, output_signature=(stored, tf.TensorSpec((None,), tf.int32))
    ).apply(tf.data.experimental.assert_cardinality(steps))
    if repeat:
        dataset = dataset.repeat()
    dataset = decode_batches(dataset, image_set.image).prefetch(BATCHES_AHEAD)
    try:
        yield dataset if data_wait is None else data_wait.measured(dataset)
    except tf.errors.OpError as error:
        # tf.data makes its own error of whatever its generator raises.
        if faults:
            raise faults[0] from error
        raise
    finally:
        # Also those of passes that were given up midway: tf.data may be inside their generators, so only the
        # readers can be closed.
        for stream in streams:
            stream.close()
