"""An image set's split -> tf.data, through petastorm's batch reader: one decode a row group."""

import itertools
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from cnnlib.errors import FeedError
from cnnlib.feed import arrow_bridge
from cnnlib.feed.shuffling import Block, in_order, shuffled
from cnnlib.imageset import IMAGE, LABEL, ImageSet

arrow_bridge.install()

# The bridge must be in place first.
from petastorm import make_batch_reader  # noqa: E402
from petastorm.reader import Reader  # noqa: E402

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
        for row_group in _row_groups(reader):
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


def _row_groups(reader: Reader) -> Iterator[Any]:
    """Iterate over a reader to its real end.

    petastorm 0.13.1 asks first whether all workers are done and then whether all work was handed out. Between the
    two questions the last row groups may be handed out, and are lost: measured in 3 of 8 epochs on a busy machine.
    Asked in the other order, after the fact, the answer is safe; where it is no, petastorm just goes on.
    """
    while True:
        try:
            yield next(reader)
        except StopIteration:
            if reader.ventilator.completed() and reader._workers_pool.all_workers_done():
                return


def _epoch_seed(seed: int, epoch: int) -> int:
    """A seed of its own for each epoch; never 0, which petastorm takes for none."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0] | 1)
