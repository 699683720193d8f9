"""An image set's split -> tf.data, through petastorm's batch reader: one decode a row group."""

import itertools
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import numpy as np
import tensorflow as tf

from cnnlib.errors import FeedError
from cnnlib.feed import arrow_bridge
from cnnlib.feed.shuffling import Block, in_order, shuffled
from cnnlib.feed.thread_pool import use_whole_thread_pool
from cnnlib.imageset import IMAGE, LABEL, ImageSet

arrow_bridge.install()

from petastorm import make_batch_reader  # noqa: E402  (the bridge must be in place first)
from petastorm.reader import Reader  # noqa: E402

use_whole_thread_pool()

# One reading thread gives the row groups in the order asked for, so the same seed gives the same batches.
READER_THREADS = 1
# The fewest that petastorm keeps.
ROW_GROUPS_AHEAD = 5
BATCHES_AHEAD = 8


@contextmanager
def make_dataset(
    image_set: ImageSet,
    split: str,
    *,
    worker_batch_size: int = 128,
    seed: int | None = None,
    shuffle_rows: int = 10_000,
) -> Iterator[tf.data.Dataset]:
    """Give a split as tf.data: (images (batch, height, width, channels) uint8, labels (batch,) int32).

    Each pass over the data set is an epoch that has every row exactly once; its last batch may be smaller. With a
    `seed` row groups and rows are shuffled, in another order each epoch; the same seed gives the same batches in the
    same order. Without one they come as published. At the end of the `with` block every reader is closed.

    Raises ImageSetError for a split without images, FeedError where petastorm cannot be used.
    """
    steps = -(-image_set.split(split).rows // worker_batch_size)
    epochs = itertools.count()
    open_readers: set[Reader] = set()
    faults: list[FeedError] = []

    def one_epoch() -> Iterator[Block]:
        epoch_seed = None if seed is None else _epoch_seed(seed, next(epochs))
        try:
            yield from one_pass(epoch_seed)
        except Exception as error:
            fault = error if isinstance(error, FeedError) else FeedError(f"{image_set.folder.uri}: {error}")
            faults.append(fault)
            raise

    def one_pass(epoch_seed: int | None) -> Iterator[Block]:
        reader = open_reader(image_set, split, epoch_seed)
        open_readers.add(reader)
        blocks = read_blocks(reader, image_set, split)
        if epoch_seed is None:
            yield from in_order(blocks, worker_batch_size)
        else:
            yield from shuffled(blocks, worker_batch_size, shuffle_rows, np.random.default_rng(epoch_seed))
        open_readers.discard(reader)

    signature = (tf.TensorSpec((None, *image_set.image.shape), tf.uint8), tf.TensorSpec((None,), tf.int32))
    dataset = tf.data.Dataset.from_generator(one_epoch, output_signature=signature)
    try:
        yield dataset.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(BATCHES_AHEAD)
    except tf.errors.OpError as error:
        # tf.data makes its own error of whatever its generator raises.
        if faults:
            raise faults[0] from error
        raise
    finally:
        # A pass that was given up midway. Its generator cannot be closed, for tf.data may be inside it.
        for reader in tuple(open_readers):
            end_reader(reader)


def open_reader(image_set: ImageSet, split: str, seed: int | None) -> Reader:
    """Open petastorm's reader for one pass over a split. With a `seed`, not 0, the row groups come shuffled."""
    return make_batch_reader(
        image_set.files(split),
        schema_fields=[f"^{IMAGE}$", f"^{LABEL}$"],
        reader_pool_type="thread",
        workers_count=READER_THREADS,
        results_queue_size=ROW_GROUPS_AHEAD,
        shuffle_row_groups=seed is not None,
        seed=seed,
        num_epochs=1,
        filesystem=image_set.folder.fs,
    )


def end_reader(reader: Reader) -> None:
    """Stop a reader's threads and wait for them. `with reader` would do so too, and print a line."""
    reader.stop()
    reader.join()


def read_blocks(reader: Reader, image_set: ImageSet, split: str) -> Generator[Block, None, None]:
    """Read what an open reader gives, a row group at a time: ((rows, height, width, channels) uint8, (rows,) int32).

    The reader is closed at the end. Raises FeedError when it gave fewer or more rows than the set has.
    """
    rows = 0
    try:
        for row_group in reader:
            # (rows,) bytes -> (rows, height, width, channels) uint8
            pixels = np.frombuffer(b"".join(getattr(row_group, IMAGE)), np.uint8)
            images, labels = pixels.reshape(-1, *image_set.image.shape), getattr(row_group, LABEL)
            rows += len(labels)
            yield images, labels
    finally:
        end_reader(reader)
    expected = image_set.split(split).rows
    if rows != expected:
        raise FeedError(
            f"{image_set.folder.uri} gave {rows} {split} images, its dataset.json says {expected}; "
            "its files were changed: ingest it anew"
        )


def read_split(image_set: ImageSet, split: str) -> Generator[Block, None, None]:
    """Read a split once in its published order, a row group at a time; see `read_blocks`."""
    return read_blocks(open_reader(image_set, split, None), image_set, split)


def _epoch_seed(seed: int, epoch: int) -> int:
    """A seed of its own for each epoch; never 0, which petastorm takes for none."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0] | 1)
