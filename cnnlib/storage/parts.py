"""Write Parquet files from many tasks at once: each task its own part files, with row groups of a chosen size."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cnnlib.storage.folder import Folder


@dataclass(frozen=True)
class PartFile:
    """One written part file: its path relative to the folder, its rows, its size in bytes, its number of row groups."""

    path: str
    rows: int
    bytes: int
    row_groups: int

    def as_dict(self) -> dict[str, Any]:
        """Return the fields under their names in `dataset.json` and `summary.json`."""
        return asdict(self)


# Part files by the folder that holds them: "train", "rejects", "ledger" …
FilesByFolder = dict[str, list[PartFile]]


def merge_files(files: FilesByFolder, more: FilesByFolder) -> FilesByFolder:
    """Return the files of both, folder by folder.

    >>> first, second = PartFile("train/a", 9, 900, 1), PartFile("train/b", 9, 900, 1)
    >>> merge_files({"train": [first]}, {"train": [second], "val": []}) == {"train": [first, second], "val": []}
    True
    """
    return {name: files.get(name, []) + more.get(name, []) for name in files | more}


def row_groups_with(
    folder: Folder, path: str, rows: Iterable[int], columns: list[str] | None = None
) -> Iterator[tuple[int, pa.Table]]:
    """Read only those row groups of a part file that have some of the given rows (numbers in the file, from 0).

    Yields (number of the row group's first row, row group).
    """
    wanted = np.array(sorted(rows), np.int64)
    with folder.fs.open(folder.path(path), "rb") as file:
        parquet = pq.ParquetFile(file)
        first = 0
        for number in range(parquet.num_row_groups):
            end = first + parquet.metadata.row_group(number).num_rows
            if np.searchsorted(wanted, first) < np.searchsorted(wanted, end):
                yield first, parquet.read_row_group(number, columns)
            first = end


class PartWriter:
    """Write one Parquet file, which is created with its first row group. Use it in a `with` block.

    An exception in the block removes the file.
    """

    def __init__(self, folder: Folder, path: str, schema: pa.Schema, rows_per_row_group: int) -> None:
        self._folder = folder
        self._path = path
        self._schema = schema
        self._rows_per_row_group = rows_per_row_group
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        self._rows = 0
        self._row_groups = 0
        self._sink: Any = None
        self._writer: pq.ParquetWriter | None = None

    @property
    def path(self) -> str:
        """Path of the file relative to the folder, whether the file exists yet or not."""
        return self._path

    @property
    def rows(self) -> int:
        """Number of rows so far, written or waiting. The next row gets this number in the file."""
        return self._rows + self._waiting_rows

    def __enter__(self) -> "PartWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._abandon()

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows. Full row groups are written to the file; the other rows wait."""
        self._waiting.append(batch)
        self._waiting_rows += batch.num_rows
        while self._waiting_rows >= self._rows_per_row_group:
            self._flush(self._rows_per_row_group)

    def close(self) -> PartFile | None:
        """Write the waiting rows and close the file. Return None if there was no row; then there is no file."""
        if self._waiting_rows:
            self._flush(self._waiting_rows)
        if self._writer is None:
            return None
        self._writer.close()
        self._sink.close()
        size = self._folder.fs.size(self._folder.path(self._path))
        return PartFile(self._path, self._rows, size, self._row_groups)

    def _flush(self, rows: int) -> None:
        table = pa.Table.from_batches(self._waiting, self._schema)
        self._open().write_table(table.slice(0, rows), row_group_size=rows)
        rest = table.slice(rows)
        self._waiting = rest.to_batches()
        self._waiting_rows = rest.num_rows
        self._rows += rows
        self._row_groups += 1

    def _open(self) -> pq.ParquetWriter:
        if self._writer is None:
            path = self._folder.path(self._path)
            self._folder.fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            self._sink = self._folder.fs.open(path, "wb")
            # Whole images hardly ever repeat, so the writer would build a dictionary and then discard it.
            self._writer = pq.ParquetWriter(
                self._sink, self._schema, use_dictionary=False, compression="snappy", write_statistics=False
            )
        return self._writer

    def _abandon(self) -> None:
        if self._sink is None:
            return
        try:
            if self._writer is not None:
                self._writer.close()
            self._sink.close()
        finally:
            path = self._folder.path(self._path)
            if self._folder.fs.exists(path):
                self._folder.fs.rm_file(path)
