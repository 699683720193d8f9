"""An image set's split -> tf.data, through petastorm's batch reader: one decode a row group."""

import itertools
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager

import numpy as np
import tensorflow as tf

from cnnlib.errors import FeedError
from cnnlib.feed import arrow_bridge
from cnnlib.feed.shuffling import Block, in_order, shuffled
from cnnlib.feed.thread_pool import use_whole_thread_pool
from cnnlib.imageset import IMAGE, LABEL, ImageSet

arrow_bridge.install()

from petastorm import make_batch_reader  # noqa: E402  (the bridge must be in place first)

use_whole_thread_pool()

# One reading thread gives the row groups in the order asked for, so the same seed gives the same batches.
READER_THREADS = 1
ROW_GROUPS_AHEAD = 4
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
    with ExitStack() as readers:

        def one_epoch() -> Iterator[Block]:
            epoch_seed = None if seed is None else _epoch_seed(seed, next(epochs))
            # A pass that is given up midway leaves its reader to the `with` block of make_dataset.
            blocks = readers.enter_context(closing(read_blocks(image_set, split, epoch_seed)))
            if epoch_seed is None:
                yield from in_order(blocks, worker_batch_size)
            else:
                random = np.random.default_rng(epoch_seed)
                yield from shuffled(blocks, worker_batch_size, shuffle_rows, random)

        signature = (
            tf.TensorSpec((None, *image_set.image.shape), tf.uint8),
            tf.TensorSpec((None,), tf.int32),
        )
        dataset = tf.data.Dataset.from_generator(one_epoch, output_signature=signature)
        yield dataset.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(BATCHES_AHEAD)


def read_blocks(image_set: ImageSet, split: str, seed: int | None) -> Generator[Block, None, None]:
    """Read a split once, a row group at a time: ((rows, height, width, channels) uint8, (rows,) int32).

    With a `seed`, which must not be 0, the row groups come shuffled. Closing the generator ends petastorm's threads.
    """
    # No `with reader`: its exit stops the threads, but does not wait for them.
    reader = make_batch_reader(
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
    rows = 0
    try:
        for row_group in reader:
            # (rows,) bytes -> (rows, height, width, channels) uint8
            pixels = np.frombuffer(b"".join(getattr(row_group, IMAGE)), np.uint8)
            images, labels = pixels.reshape(-1, *image_set.image.shape), getattr(row_group, LABEL)
            rows += len(labels)
            yield images, labels
    finally:
        reader.stop()
        reader.join()
    if rows != image_set.split(split).rows:
        raise FeedError(
            f"{image_set.folder.uri} gave {rows} {split} images, its dataset.json says "
            f"{image_set.split(split).rows}; its files were changed: ingest it anew"
        )


def _epoch_seed(seed: int, epoch: int) -> int:
    """A seed of its own for each epoch; never 0, which petastorm takes for none."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0] | 1)
