"""Where a split's rows lie: its row groups, read off the footers of its files and held against dataset.json."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow.parquet as pq

from cnnlib.errors import FeedError, first_line
from cnnlib.imageset import ImageSet
from cnnlib.parts import PartFile

# A footer is a few kilobytes: where files lie far away, the waiting is what takes time.
FOOTER_THREADS = 16


@dataclass(frozen=True)
class RowGroup:
    """One row group: the path of its file in the set's file system, its number in that file, its rows."""

    path: str
    number: int
    rows: int

    def __str__(self) -> str:
        return f"row group {self.number} of {self.path}"


def read_row_groups(image_set: ImageSet, split: str) -> Sequence[RowGroup]:
    """List the row groups of a split, in their published order.

    Raises ImageSetError for a split without images, FeedError where a file is not there, cannot be read, or has other
    rows than dataset.json says.
    """
    files = image_set.split(split).files
    with ThreadPoolExecutor(min(FOOTER_THREADS, len(files)), "sparkcnn-footer") as threads:
        groups = list(threads.map(lambda file: _row_groups_of(image_set, file), files))
    return [group for of_file in groups for group in of_file]


def _row_groups_of(image_set: ImageSet, file: PartFile) -> list[RowGroup]:
    path = image_set.folder.path(file.path)
    try:
        with image_set.folder.fs.open(path, "rb") as opened:
            footer = pq.read_metadata(opened)
            rows = [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]
    except Exception as error:
        raise FeedError(f"{path} cannot be read: {first_line(error)}; ingest the set anew") from error
    if sum(rows) != file.rows:
        raise FeedError(
            f"{path} has {sum(rows)} rows, the dataset.json of {image_set.folder.uri} says {file.rows}; its files were "
            "changed: ingest it anew"
        )
    return [RowGroup(path, number, count) for number, count in enumerate(rows)]
