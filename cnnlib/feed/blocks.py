"""Read one worker's rows of a split as NumPy blocks, one row group at a time, epoch after epoch."""

import itertools
import threading
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import pyarrow as pa

from cnnlib.config import DataSettings
from cnnlib.errors import FeedError, ImageError
from cnnlib.feed.petastorm.reader import RowGroupReader
from cnnlib.feed.row_groups import RowGroup, list_row_groups
from cnnlib.feed.sharding import ALONE, Shard, worker_slices
from cnnlib.feed.shuffling import Block
from cnnlib.image_set.contract import IMAGE, LABEL, ImageSet, raw_pixels, stored_pixels

DEFAULT_TIMEOUT_S: float = DataSettings.model_fields["timeout_s"].default


class BlockStream:
    """One open reader. Each call of `epoch()` returns the blocks of the next epoch; the reader already reads ahead.

    `first_epoch` is the number of the first epoch. `epochs` limits how many are read ahead; without it they never end.
    """

    def __init__(
        self,
        image_set: ImageSet,
        row_groups: Sequence[RowGroup],
        *,
        seed: int | None = None,
        shard: Shard = ALONE,
        first_epoch: int = 0,
        epochs: int | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        self._image_set = image_set
        self._row_groups = row_groups
        self._rows = [group.rows for group in row_groups]
        self._seed = seed
        self._shard = shard
        self.next_epoch = first_epoch
        all_epochs = itertools.count(first_epoch) if epochs is None else range(first_epoch, first_epoch + epochs)
        in_reading_order = (
            row_groups[piece.row_group]
            for epoch in all_epochs
            for piece in worker_slices(self._rows, seed, epoch, shard)
        )
        self._reader = RowGroupReader(image_set.folder.fs, in_reading_order, timeout_s)

    def epoch(self) -> Generator[Block, None, None]:
        """Yield the worker's blocks of the next epoch: (images as stored, see `images_of`; labels (rows,) int32)."""
        for piece in worker_slices(self._rows, self._seed, self.next_epoch, self._shard):
            group = self._row_groups[piece.row_group]
            table = self._reader.read()
            if table.num_rows != group.rows:
                raise FeedError(
                    f"{group} has {table.num_rows} rows, but its footer said {group.rows}; ingest the set again"
                )
            table = table.slice(piece.start, piece.rows).combine_chunks()
            yield images_of(table, self._image_set, group), table.column(LABEL).to_numpy()
        self.next_epoch += 1

    def stop(self) -> None:
        """Tell the reader's threads to end, without waiting for them."""
        self._reader.stop()

    def close(self) -> None:
        """End the reader's threads."""
        self._reader.stop()
        self._reader.join()


class BlockStreams:
    """The block streams of one data set: one stream per pass that is under way at the same time.

    Usually one stream goes on from epoch to epoch; a pass that overlaps another opens a second one. `options` are those
    of `BlockStream`. Threads may share this object: tf.data runs each pass in a thread of its own, and may start a pass
    while the feed is being closed.
    """

    def __init__(self, image_set: ImageSet, row_groups: Sequence[RowGroup], **options: Any) -> None:
        self._image_set = image_set
        self._row_groups = row_groups
        self._options = options
        # Reentrant: garbage collection may end an abandoned pass in a thread that already holds the lock.
        self._lock = threading.RLock()
        self._closed = False
        self._in_use: set[BlockStream] = set()
        self._idle: dict[int, BlockStream] = {}

    def epoch(self, epoch: int) -> Generator[Block, None, None]:
        """Yield the blocks of an epoch. Callers ask for each epoch once, in ascending order."""
        stream = self._stream_at(epoch)
        complete = False
        try:
            yield from stream.epoch()
            complete = True
        finally:
            # The reader of an abandoned pass stands in the middle of an epoch, so no other pass can use it.
            self._give_back(stream, reusable=complete)

    def close(self) -> None:
        """End the threads of all streams. A pass that is under way raises FeedError when it continues."""
        with self._lock:
            self._closed = True
            streams = [*self._in_use, *self._idle.values()]
        for stream in streams:
            stream.stop()
        for stream in streams:
            stream.close()

    def _stream_at(self, epoch: int) -> BlockStream:
        with self._lock:
            if self._closed:
                raise FeedError("the feed is closed")
            stream = self._idle.pop(epoch, None)
            # Overlapping passes leave streams behind whose next epoch another stream has already read.
            outdated = [self._idle.pop(old) for old in list(self._idle) if old < epoch]
            if stream is None:
                stream = BlockStream(self._image_set, self._row_groups, first_epoch=epoch, **self._options)
            self._in_use.add(stream)
        for old in outdated:
            old.close()
        return stream

    def _give_back(self, stream: BlockStream, *, reusable: bool) -> None:
        with self._lock:
            self._in_use.discard(stream)
            if reusable and not self._closed:
                self._idle[stream.next_epoch] = stream
                return
        stream.close()


def images_of(table: pa.Table, image_set: ImageSet, group: RowGroup) -> np.ndarray:
    """Return the images of a table as stored.

    Raw images become (rows, height, width, channels) uint8; PNG and JPEG files become (rows,) object of bytes. Raises
    FeedError for raw images that do not have the set's size.
    """
    spec = image_set.image
    # `combine_chunks` has left one chunk.
    column = table.column(IMAGE).chunk(0)
    if spec.encoding != "raw":
        return column.to_numpy(zero_copy_only=False)
    try:
        return raw_pixels(column, spec.shape)
    except ValueError:
        raise FeedError(f"{group} has images that are not {spec.size_bytes} bytes long; ingest the set again") from None


def read_split(image_set: ImageSet, split: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> Generator[Block, None, None]:
    """Read a split once in its published order, one row group at a time.

    Yields (images (rows, height, width, channels) uint8, labels (rows,) int32). Raises FeedError as `list_row_groups`
    and `BlockStream` do, and for an image that cannot be decoded.
    """
    row_groups = list_row_groups(image_set, split, timeout_s)
    with closing(BlockStream(image_set, row_groups, epochs=1, timeout_s=timeout_s)) as stream:
        for images, labels in stream.epoch():
            yield _decoded(images, image_set), labels


def _decoded(images: np.ndarray, image_set: ImageSet) -> np.ndarray:
    if image_set.image.encoding == "raw":
        return images
    try:
        return np.stack([stored_pixels(image, image_set.image) for image in images])
    except ImageError as error:
        raise FeedError(
            f"{image_set.folder.uri} has an image that cannot be decoded ({error.code}); ingest the set again"
        ) from error
