"""A split's rows as NumPy blocks, a row group at a time, for one worker, epoch after epoch."""

import itertools
from collections.abc import Generator, Iterator
from contextlib import closing

import numpy as np
import pyarrow as pa

from cnnlib.errors import FeedError
from cnnlib.feed.reader import RowGroupReader
from cnnlib.feed.row_groups import RowGroup, read_row_groups
from cnnlib.feed.sharding import Shard, worker_stretches
from cnnlib.feed.shuffling import Block
from cnnlib.imageset import IMAGE, LABEL, ImageSet

DEFAULT_TIMEOUT_S = 120.0


class BlockStream:
    """One open reader: `epoch()` gives the blocks of the next epoch, and the reader is ahead of it already.

    The first epoch is `first_epoch`. `epochs` bounds what is read ahead; without it there is always another epoch.
    """

    def __init__(
        self,
        image_set: ImageSet,
        split: str,
        *,
        row_groups: list[RowGroup],
        seed: int | None,
        shard: Shard = Shard(),
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
            stretch.row_group for epoch in all_epochs for stretch in worker_stretches(self._rows, seed, epoch, shard)
        )
        self._reader = RowGroupReader(image_set.folder.fs, row_groups, asked, timeout_s)

    def epoch(self) -> Iterator[Block]:
        """Give the worker's blocks of the next epoch: images as stored, see `images_of`, and (rows,) int32."""
        for stretch in worker_stretches(self._rows, self._seed, self.next_epoch, self._shard):
            group = self._row_groups[stretch.row_group]
            table = next(self._reader)
            if table.num_rows != group.rows:
                raise FeedError(f"{group} has {table.num_rows} rows, it had {group.rows}; ingest the set anew")
            table = table.slice(stretch.start, stretch.rows).combine_chunks()
            yield images_of(table, self._image_set, group), table.column(LABEL).to_numpy()
        self.next_epoch += 1

    def close(self) -> None:
        """End the reader's threads."""
        self._reader.end()


def images_of(table: pa.Table, image_set: ImageSet, group: RowGroup) -> np.ndarray:
    """The images of a table: (rows, height, width, channels) uint8 where stored raw, else (rows,) object of bytes.

    Raises FeedError for raw images of another size than the set's.
    """
    spec = image_set.image
    # One chunk: `combine_chunks` was called. An empty table has none.
    column = table.column(IMAGE).chunk(0)
    if spec.encoding != "raw":
        return column.to_numpy(zero_copy_only=False)
    _, offsets_buffer, pixels_buffer = column.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int32)[column.offset : column.offset + len(column) + 1]
    if (np.diff(offsets) != spec.size_bytes).any():
        raise FeedError(f"{group} has images that are not {spec.size_bytes} bytes long; ingest the set anew")
    # A view of Arrow's memory: (rows * height * width * channels,) -> (rows, height, width, channels)
    return np.frombuffer(pixels_buffer, np.uint8)[offsets[0] : offsets[-1]].reshape(-1, *spec.shape)


def read_split(image_set: ImageSet, split: str) -> Generator[Block, None, None]:
    """Read a split once in its published order, a row group at a time; see `BlockStream`."""
    stream = BlockStream(image_set, split, row_groups=list(read_row_groups(image_set, split)), seed=None, epochs=1)
    with closing(stream):
        yield from stream.epoch()
