"""A split's rows as NumPy blocks, a row group at a time, for one worker, epoch after epoch."""

import itertools
import threading
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import pyarrow as pa

from cnnlib.errors import FeedError, ImageError
from cnnlib.feed.petastorm.reader import RowGroupReader
from cnnlib.feed.row_groups import RowGroup, read_row_groups
from cnnlib.feed.sharding import ALONE, Shard, worker_stretches
from cnnlib.feed.shuffling import Block
from cnnlib.image_set.contract import IMAGE, LABEL, ImageSet, raw_pixels, stored_pixels

DEFAULT_TIMEOUT_S = 120.0


class BlockStream:
    """One open reader: `epoch()` gives the blocks of the next epoch, and the reader is ahead of it already.

    The first epoch is `first_epoch`. `epochs` bounds what is read ahead; without it there is always another epoch.
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
        asked = (
            row_groups[stretch.row_group]
            for epoch in all_epochs
            for stretch in worker_stretches(self._rows, seed, epoch, shard)
        )
        self._reader = RowGroupReader(image_set.folder.fs, asked, timeout_s)

    def epoch(self) -> Generator[Block, None, None]:
        """Give the worker's blocks of the next epoch: images as stored, see `images_of`, and (rows,) int32."""
        for stretch in worker_stretches(self._rows, self._seed, self.next_epoch, self._shard):
            group = self._row_groups[stretch.row_group]
            table = self._reader.read()
            if table.num_rows != group.rows:
                raise FeedError(f"{group} has {table.num_rows} rows, it had {group.rows}; ingest the set anew")
            table = table.slice(stretch.start, stretch.rows).combine_chunks()
            yield images_of(table, self._image_set, group), table.column(LABEL).to_numpy()
        self.next_epoch += 1

    def stop(self) -> None:
        """Have the reader's threads end, without waiting for them."""
        self._reader.stop()

    def close(self) -> None:
        """End the reader's threads."""
        self._reader.stop()
        self._reader.join()


class BlockStreams:
    """The streams of one data set: one that goes on from epoch to epoch, and more where passes over it overlap.

    `options` are those of `BlockStream`. Threads may share it: tf.data runs passes in threads of its own, and may
    begin another while the feed is being closed.
    """

    def __init__(self, image_set: ImageSet, row_groups: Sequence[RowGroup], **options: Any) -> None:
        self._image_set = image_set
        self._row_groups = row_groups
        self._options = options
        # Python may collect a pass that was given up, and so end it, in a thread that holds the lock.
        self._lock = threading.RLock()
        self._closed = False
        self._in_use: set[BlockStream] = set()
        self._idle: dict[int, BlockStream] = {}

    def epoch(self, epoch: int) -> Generator[Block, None, None]:
        """Give the blocks of an epoch. Epochs are asked for in their order, and each of them once."""
        stream = self._stream_at(epoch)
        whole = False
        try:
            yield from stream.epoch()
            whole = True
        finally:
            # A pass that was given up midway has no use for its reader, and nobody else has.
            self._give_back(stream, reusable=whole)

    def close(self) -> None:
        """End the threads of all streams, also of passes under way: those raise FeedError where they go on."""
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
            # Passes that overlap leave streams behind, at epochs that were taken meanwhile.
            passed = [self._idle.pop(old) for old in list(self._idle) if old < epoch]
            if stream is None:
                stream = BlockStream(self._image_set, self._row_groups, first_epoch=epoch, **self._options)
            self._in_use.add(stream)
        for old in passed:
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
    """The images of a table: (rows, height, width, channels) uint8 where stored raw, else (rows,) object of bytes.

    Raises FeedError for raw images of another size than the set's.
    """
    spec = image_set.image
    # One chunk: `combine_chunks` was called. An empty table has none.
    column = table.column(IMAGE).chunk(0)
    if spec.encoding != "raw":
        return column.to_numpy(zero_copy_only=False)
    try:
        return raw_pixels(column, spec.shape)
    except ValueError:
        raise FeedError(f"{group} has images that are not {spec.size_bytes} bytes long; ingest the set anew") from None


def read_split(image_set: ImageSet, split: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> Generator[Block, None, None]:
    """Read a split once in its published order, a row group at a time: (rows, height, width, channels) uint8, labels.

    Raises FeedError as `BlockStream` does, and for an image that cannot be decoded.
    """
    row_groups = read_row_groups(image_set, split, timeout_s)
    with closing(BlockStream(image_set, row_groups, epochs=1, timeout_s=timeout_s)) as stream:
        for images, labels in stream.epoch():
            yield _decoded(images, image_set), labels


def _decoded(images: np.ndarray, image_set: ImageSet) -> np.ndarray:
    if image_set.image.encoding == "raw":
        return images
    try:
        return np.stack([stored_pixels(image, image_set.image) for image in images])
    except ImageError as error:
        raise FeedError(f"{image_set.folder.uri} has an image that is {error.code}; ingest the set anew") from error
