"""Where a split's rows lie: its row groups, read off the footers of its files and held against dataset.json."""

import queue
import threading
from contextlib import suppress
from dataclasses import dataclass

import pyarrow.parquet as pq

from cnnlib.errors import FeedError, first_line
from cnnlib.image_set.contract import ImageSet
from cnnlib.storage.parts import PartFile

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


def read_row_groups(image_set: ImageSet, split: str, timeout_s: float) -> list[RowGroup]:
    """List the row groups of a split, in their published order.

    Raises ImageSetError for a split without images, FeedError where a file is not there, cannot be read, has other
    rows than dataset.json says, or where no footer came for `timeout_s` seconds.
    """
    files = image_set.split(split).files
    unread: queue.SimpleQueue[PartFile] = queue.SimpleQueue()
    read: queue.SimpleQueue[tuple[PartFile, list[RowGroup] | FeedError]] = queue.SimpleQueue()
    for file in files:
        unread.put(file)

    def read_footers() -> None:
        with suppress(queue.Empty):
            while True:
                file = unread.get_nowait()
                try:
                    read.put((file, _row_groups_of(image_set, file)))
                except FeedError as error:
                    read.put((file, error))

    # No ThreadPoolExecutor: the interpreter would wait for its threads at the end, and one may never get an answer.
    for _ in range(min(FOOTER_THREADS, len(files))):
        threading.Thread(target=read_footers, name="sparkcnn-footer", daemon=True).start()
    groups: dict[PartFile, list[RowGroup]] = {}
    try:
        while len(groups) < len(files):
            file, result = read.get(timeout=timeout_s)
            if isinstance(result, FeedError):
                raise result
            groups[file] = result
    except queue.Empty:
        path = next(file.path for file in files if file not in groups)
        raise FeedError(no_data_came(f"the footer of {image_set.folder.path(path)}", timeout_s)) from None
    finally:
        with suppress(queue.Empty):
            while True:
                unread.get_nowait()
    return [group for file in files for group in groups[file]]


def no_data_came(reading: str, timeout_s: float) -> str:
    """The message where storage gave no answer in time."""
    return (
        f"no data came for data.timeout_s={timeout_s:g} s while reading {reading}; check that file's storage, or raise "
        "the setting"
    )


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
