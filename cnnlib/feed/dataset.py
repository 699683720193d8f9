"""Feed a split of an image set to tf.data through petastorm: each row exactly once per epoch, over all workers."""

import itertools
import math
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager

import tensorflow as tf

from cnnlib.config import DataSettings, FitSettings
from cnnlib.errors import FeedError, first_line
from cnnlib.feed.blocks import DEFAULT_TIMEOUT_S, BlockStreams
from cnnlib.feed.data_wait import DataWait
from cnnlib.feed.decoding import decode_batches, is_decoding_error
from cnnlib.feed.row_groups import list_row_groups
from cnnlib.feed.sharding import ALONE, Shard, epoch_random, step_rows
from cnnlib.feed.shuffling import Block, mixed
from cnnlib.image_set.contract import ImageSet, Split

DEFAULT_SHUFFLE_MB: float = DataSettings.model_fields["shuffle_mb"].default
DEFAULT_BATCH_SIZE: int = FitSettings.model_fields["worker_batch_size"].default
# A block is a row group, or a sixteenth of the pool.
BLOCKS_AHEAD = 4
BATCHES_AHEAD = 8


@contextmanager
def make_dataset(
    image_set: ImageSet,
    split: str,
    *,
    worker_batch_size: int = DEFAULT_BATCH_SIZE,
    seed: int | None = None,
    shuffle_mb: float = DEFAULT_SHUFFLE_MB,
    shard: Shard = ALONE,
    first_epoch: int = 0,
    repeat: bool = False,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    data_wait: DataWait | None = None,
) -> Iterator[tf.data.Dataset]:
    """Open a split as tf.data: (images (batch, height, width, channels) uint8, labels (batch,) int32).

    Each pass over the data set is one epoch; the first has the number `first_epoch` (from 0). With `repeat`, one
    endless pass holds all epochs. Over all workers of `shard`, an epoch has every row exactly once. Every worker takes
    the same number of steps, which is the data set's cardinality. The batches differ by at most one row; see
    `step_rows`.

    With a `seed`, each epoch has another order: row groups are shuffled, and rows are mixed in a pool of at least
    `shuffle_mb` megabytes. The same seed and number of workers give the same batches. Without a seed, rows come in the
    published order. Up to twice the pool is in memory.

    `data_wait` measures how long the consumer waits. The end of the `with` block closes every reader.

    Raises ImageSetError for a split without images and ConfigError for more workers than rows. Raises FeedError if a
    file is damaged, or if storage gives no data for `timeout_s` seconds.

    Example: print the shape of each batch of one epoch.

    >>> from cnnlib.image_set import open_image_set
    >>> photos = open_image_set("sets/photos")
    >>> with make_dataset(photos, "train", worker_batch_size=4, seed=0) as dataset:
    ...     for images, labels in dataset:
    ...         print(images.shape, labels.shape)
    (4, 28, 28, 1) (4,)
    (4, 28, 28, 1) (4,)
    """
    described = image_set.split(split)
    batch_rows = step_rows(described.rows, worker_batch_size, shard)
    row_groups = list_row_groups(image_set, split, timeout_s)
    pool_rows = min(rows_in_megabytes(shuffle_mb, image_set, described), sum(batch_rows))
    epochs = itertools.count(first_epoch)
    streams = BlockStreams(image_set, row_groups, seed=seed, shard=shard, timeout_s=timeout_s)
    errors: list[FeedError] = []

    def one_epoch() -> Iterator[Block]:
        epoch = next(epochs)
        try:
            with closing(streams.epoch(epoch)) as blocks:
                yield from (
                    blocks if seed is None else mixed(blocks, pool_rows, epoch_random(seed, epoch, shard.worker))
                )
        except Exception as error:
            if isinstance(error, FeedError):
                errors.append(error)
            else:
                errors.append(FeedError(f"{image_set.folder.uri}: {first_line(error)}"))
            raise

    blocks = tf.data.Dataset.from_generator(one_epoch, output_signature=block_signature(image_set))
    if repeat:
        # Repeat here, before all else: then the pool of the next epoch fills while training takes the last batches.
        blocks = blocks.repeat()
    # tf.data cuts the blocks into batches, because each element that a Python generator yields costs as much as copying
    # a hundred images. `rebatch` goes through the batch sizes again in each epoch.
    stored = blocks.prefetch(BLOCKS_AHEAD).rebatch(batch_rows)
    steps = tf.data.INFINITE_CARDINALITY if repeat else len(batch_rows)
    stored = stored.apply(tf.data.experimental.assert_cardinality(steps))
    dataset = decode_batches(stored, image_set.image).prefetch(BATCHES_AHEAD).with_options(_thread_options())
    try:
        # Only the readers can be closed: tf.data may still run the generators of abandoned passes.
        with closing(streams):
            yield dataset if data_wait is None else data_wait.measured(dataset)
    except tf.errors.OpError as error:
        # tf.data replaces any error of its generator with one of its own.
        if not errors:
            if not is_decoding_error(error):
                raise
            encoding = image_set.image.encoding.upper()
            errors.append(
                FeedError(
                    f"{image_set.folder.uri} has an image that is not a valid {encoding} file; ingest the set again"
                )
            )
        # The iterator must not stay alive through the frames of TensorFlow's error or through a cycle with `errors`.
        # Otherwise Python would exit while threads of the iterator are in the generator above, and TensorFlow would
        # wait for them forever.
        raise errors.pop(0) from error.with_traceback(None)


def _thread_options() -> tf.data.Options:
    """Return options with enough threads that ready batches do not wait for a thread that waits for storage.

    TensorFlow makes one thread per processor that it may use. With one processor, the generator of `make_dataset` and
    the clocks of `data_wait` would share that thread.
    """
    options = tf.data.Options()
    # More processors have enough threads already. A private pool has a cost: TensorFlow 2.18 waits for its threads at
    # exit.
    if _processors() == 1:
        options.threading.private_threadpool_size = 3
    return options


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def rows_in_megabytes(megabytes: float, image_set: ImageSet, split: Split) -> int:
    """Return how many stored images of a split have this size together (1 MB is 2**20 bytes); at least one."""
    image_bytes = image_set.image.size_bytes
    if image_set.image.encoding != "raw":
        image_bytes = math.ceil(sum(file.bytes for file in split.files) / split.rows)
    return math.ceil(megabytes * 2**20 / image_bytes)


def block_signature(image_set: ImageSet) -> tuple[tf.TensorSpec, tf.TensorSpec]:
    """Return the tensor types of a `Block` of this set."""
    if image_set.image.encoding == "raw":
        images = tf.TensorSpec((None, *image_set.image.shape), tf.uint8)
    else:
        images = tf.TensorSpec((None,), tf.string)
    return images, tf.TensorSpec((None,), tf.int32)
