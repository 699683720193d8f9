"""List the row groups of a split: read the footers of its files and compare them with dataset.json."""

import queue
import threading
from contextlib import suppress
from dataclasses import dataclass

import pyarrow.parquet as pq

from cnnlib.errors import FeedError, first_line
from cnnlib.image_set.contract import ImageSet
from cnnlib.storage.parts import PartFile

# A footer has a few kilobytes. On distant storage nearly all the time is waiting, so many threads wait together.
FOOTER_THREADS = 16


@dataclass(frozen=True)
class RowGroup:
    """One row group of a Parquet file.

    `path` is the file's path in the image set's file system, `number` the row group's position in the file (from 0),
    `rows` its number of rows.
    """

    path: str
    number: int
    rows: int

    def __str__(self) -> str:
        return f"row group {self.number} of {self.path}"


def list_row_groups(image_set: ImageSet, split: str, timeout_s: float) -> list[RowGroup]:
    """List the row groups of a split, in their published order.

    Raises ImageSetError for a split without images. Raises FeedError if a file is missing, cannot be read, or has a
    different number of rows than dataset.json says, and if no footer arrives for `timeout_s` seconds.
    """
    files = image_set.split(split).files
    unread: queue.SimpleQueue[PartFile] = queue.SimpleQueue()
    results: queue.SimpleQueue[tuple[PartFile, list[RowGroup] | FeedError]] = queue.SimpleQueue()
    for file in files:
        unread.put(file)

    def read_footers() -> None:
        with suppress(queue.Empty):
            while True:
                file = unread.get_nowait()
                try:
                    results.put((file, _row_groups_of(image_set, file)))
                except FeedError as error:
                    results.put((file, error))

    # Not a ThreadPoolExecutor: at exit Python waits for its threads, and one of them may never get an answer.
    for _ in range(min(FOOTER_THREADS, len(files))):
        threading.Thread(target=read_footers, name="sparkcnn-footer", daemon=True).start()
    groups: dict[PartFile, list[RowGroup]] = {}
    try:
        while len(groups) < len(files):
            file, result = results.get(timeout=timeout_s)
            if isinstance(result, FeedError):
                raise result
            groups[file] = result
    except queue.Empty:
        path = next(file.path for file in files if file not in groups)
        raise FeedError(timeout_message(f"the footer of {image_set.folder.path(path)}", timeout_s)) from None
    finally:
        # After an error the threads find no more work.
        with suppress(queue.Empty):
            while True:
                unread.get_nowait()
    return [group for file in files for group in groups[file]]


def timeout_message(reading: str, timeout_s: float) -> str:
    """Return the error message for storage that did not answer in time."""
    return (
        f"no data came for data.timeout_s={timeout_s:g} s while reading {reading}; check the storage of that file, or "
        "raise data.timeout_s"
    )


def _row_groups_of(image_set: ImageSet, file: PartFile) -> list[RowGroup]:
    path = image_set.folder.path(file.path)
    try:
        with image_set.folder.fs.open(path, "rb") as opened:
            footer = pq.read_metadata(opened)
            rows = [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]
    except Exception as error:
        raise FeedError(f"{path} cannot be read: {first_line(error)}; ingest the set again") from error
    if sum(rows) != file.rows:
        raise FeedError(
            f"{path} has {sum(rows)} rows, but the dataset.json of {image_set.folder.uri} says {file.rows}; its files "
            "were changed, so ingest the set again"
        )
    return [RowGroup(path, number, count) for number, count in enumerate(rows)]
