"""The Parquet dataset classes of pyarrow 14, rebuilt on current pyarrow, as far as petastorm 0.13.1 uses them.

petastorm plans its work by file and row group. It lists a dataset's `pieces`, splits them into one piece per row group,
and hands those to its workers, each of which reads by itself. pyarrow 15 removed the classes that did this:
`ParquetDataset` with `.pieces`, `ParquetDatasetPiece` and `PartitionSet`. The classes here answer the same calls with
the same results:

- the values of a partition are int64 if all of them read as integers, else strings; they become a dictionary column of
  the table;
- `filters` look at partition values only, and drop whole files;
- files and folders whose names begin with `_` or `.` are not data.

The feed reads single row groups with `ParquetDatasetPiece`. `ParquetDataset`, partitions and filters serve petastorm's
`make_batch_reader`: the benchmarks and petastorm's own tests (`make petastorm`) use it.

The objects do not change once made, so threads can share them; pieces and partitions can be pickled. A call that opens
a file closes it before it returns.
"""

import operator
import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
from fsspec.implementations.arrow import ArrowFSWrapper

from cnnlib.errors import FeedError

FILTER_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
    "in": lambda value, choices: value in choices,
    "not in": lambda value, choices: value not in choices,
}


@dataclass
class PartitionSet:
    """The distinct values of one partition column; `keys` has them as the folder names spell them.

    `dictionary` has them as Arrow values: int64 if all of them read as integers, else string.

    >>> PartitionSet("year", ["2024", "2025"]).dictionary.to_pylist()
    [2024, 2025]
    >>> PartitionSet("split", ["test", "1"]).dictionary.to_pylist()
    ['test', '1']
    """

    name: str
    keys: list[str]
    dictionary: pa.Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            self.dictionary = pa.array([int(key) for key in self.keys], pa.int64())
        except (ValueError, OverflowError):
            self.dictionary = pa.array(self.keys, pa.string())


class Partitions(list[PartitionSet]):
    """The partition columns of a dataset, outermost folder first."""

    @property
    def partition_names(self) -> set[str]:
        """Names of the columns whose values stand in folder names instead of the files."""
        return {partition.name for partition in self}


@dataclass(frozen=True)
class ParquetDatasetPiece:
    """A file or one row group of it, with the partition values that its folders name.

    `partition_keys` has (column, index into that column's `PartitionSet`) pairs, outermost folder first.
    """

    path: str
    open_file_func: Callable[[str], Any] = field(repr=False, compare=False)
    row_group: int | None = None
    partition_keys: Sequence[tuple[str, int]] = ()

    def get_metadata(self) -> pq.FileMetaData:
        """Read the footer of the file."""
        return _read_footer(self.open_file_func, self.path)

    def read(self, columns: Iterable[str] | None = None, partitions: Sequence[PartitionSet] | None = None) -> pa.Table:
        """Read the rows of this piece: the given columns of the file (None: all), then every partition column."""
        # No Arrow threads: if one still holds this Python file when the interpreter exits, it aborts the process. That
        # happened in 5 of 120 runs. petastorm's workers are parallel enough.
        names = None if columns is None else list(columns)
        with self.open_file_func(self.path) as source, pq.ParquetFile(source) as file:
            row_groups = range(file.num_row_groups) if self.row_group is None else [self.row_group]
            table = file.read_row_groups(row_groups, columns=names, use_threads=False)
        for level, (name, index) in enumerate(self.partition_keys):
            if partitions is None:
                raise FeedError(f"{self.path} lies in partition folders; pass partitions= to read()")
            codes = pa.repeat(pa.scalar(index, pa.int32()), table.num_rows)
            values = pa.DictionaryArray.from_arrays(codes, partitions[level].dictionary)
            table = table.append_column(name, values)
        return table


class ParquetDataset:
    """The Parquet files of one folder or of a list of files. Making it opens no data file.

    `paths` is as given; `fs` is an fsspec file system. `pieces` has one piece per file: sorted by path for a folder, in
    the given order for a list. `partitions` is None for a list. `metadata` and `common_metadata` are the footers of a
    folder's summary files, or None; if `_common_metadata` is missing, `_metadata` is used for both.

    Raises FeedError if a path of a list is not a file, or if files of a folder have different partition columns.
    """

    def __init__(
        self,
        path_or_paths: str | list[str],
        filesystem: Any = None,
        validate_schema: bool = False,
        metadata_nthreads: int | None = None,
        filters: Any = None,
    ) -> None:
        if validate_schema:
            raise FeedError("validate_schema=True is not supported; pass False, as petastorm does")
        # `metadata_nthreads` limited the threads that listed folders. One recursive listing needs none.
        self.paths = path_or_paths
        self.fs = _as_fsspec(filesystem)
        self.pieces: list[ParquetDatasetPiece]
        self.partitions: Partitions | None = None
        self.metadata_path: str | None = None
        self.common_metadata_path: str | None = None

        paths = path_or_paths if isinstance(path_or_paths, list) else [path_or_paths]
        if len(paths) == 1 and self.fs.isdir(paths[0]):
            self._list_folder(paths[0])
        else:
            self._list_files(paths)
        if filters:
            self.pieces = [piece for piece in self.pieces if matches(self._partition_of(piece), filters)]
        self.metadata = self._footer_or_none(self.metadata_path)
        self.common_metadata = self._footer_or_none(self.common_metadata_path or self.metadata_path)

    def _list_files(self, paths: list[str]) -> None:
        for path in paths:
            if not self.fs.isfile(path):
                raise FeedError(f"{path} is not a file; pass petastorm one folder or a list of files")
        self.pieces = [ParquetDatasetPiece(path, self.fs.open) for path in paths]

    def _list_folder(self, root: str) -> None:
        found: list[tuple[str, list[tuple[str, str]]]] = []
        for path in sorted(self.fs.find(root)):
            *folders, name = posixpath.relpath(path, root).split("/")
            if not folders and name == "_metadata":
                self.metadata_path = path
            elif not folders and name == "_common_metadata":
                self.common_metadata_path = path
            elif not _is_private(folders, name):
                found.append((path, [_split_partition(folder, path) for folder in folders]))

        columns = [name for name, _ in found[0][1]] if found else []
        for path, pairs in found:
            if [name for name, _ in pairs] != columns:
                raise FeedError(
                    f"{path} and {found[0][0]} lie in folders of different partition columns; give all files the same"
                )
        # In path order, so that a value gets the same index in every process.
        keys = [list(dict.fromkeys(pairs[level][1] for _, pairs in found)) for level in range(len(columns))]
        self.partitions = Partitions(map(PartitionSet, columns, keys))
        codes = [{key: code for code, key in enumerate(level)} for level in keys]
        self.pieces = [
            ParquetDatasetPiece(
                path,
                self.fs.open,
                partition_keys=[(name, code[key]) for (name, key), code in zip(pairs, codes, strict=True)],
            )
            for path, pairs in found
        ]

    def _partition_of(self, piece: ParquetDatasetPiece) -> dict[str, int | str]:
        levels = zip(self.partitions or [], piece.partition_keys, strict=True)
        return {level.name: level.dictionary[index].as_py() for level, (_, index) in levels}

    def _footer_or_none(self, path: str | None) -> pq.FileMetaData | None:
        return None if path is None else _read_footer(self.fs.open, path)


def matches(partition: Mapping[str, int | str], filters: Any) -> bool:
    """Return whether the values of a partition pass `filters`.

    `filters` is a list of (column, operator, value) triples, all of which must hold, or a list of such lists, one of
    which must hold. A triple on a column that is not in `partition` holds. Raises FeedError for an unknown operator.

    >>> matches({"year": 2025}, [("year", ">", 2024), ("label", "=", 3)])
    True
    >>> matches({"year": 2025}, [[("year", "=", "2024")], [("year", "in", {2022, 2023})]])
    False
    """
    alternatives = [filters] if isinstance(filters[0][0], str) else filters
    return any(all(_holds(partition, *triple) for triple in triples) for triples in alternatives)


def _holds(partition: Mapping[str, int | str], column: str, name: str, wanted: Any) -> bool:
    if name not in FILTER_OPERATORS:
        raise FeedError(
            f"{name!r} in the filter on {column!r} is not a known operator; use one of {', '.join(FILTER_OPERATORS)}"
        )
    if column not in partition:
        return True
    value = partition[column]
    # A folder's name has no type of its own, so convert it to the type of the value it is compared with.
    example = next(iter(wanted), value) if name in ("in", "not in") else wanted
    return FILTER_OPERATORS[name](type(example)(value), wanted)


def _read_footer(open_file: Callable[[str], Any], path: str) -> pq.FileMetaData:
    with open_file(path) as source:
        return pq.read_metadata(source)


def _as_fsspec(filesystem: Any) -> Any:
    if filesystem is None:
        return fsspec.filesystem("file")
    return ArrowFSWrapper(filesystem) if isinstance(filesystem, pyarrow.fs.FileSystem) else filesystem


def _is_private(folders: list[str], name: str) -> bool:
    """Return whether a file is hidden, temporary, a checksum, or an object store's marker of a folder."""
    if any(folder.startswith(("_", ".")) and "=" not in folder for folder in folders):
        return True
    return name.startswith(("_", ".")) or name.endswith((".crc", "_$folder$"))


def _split_partition(folder: str, path: str) -> tuple[str, str]:
    name, equals, value = folder.partition("=")
    if not equals:
        raise FeedError(f"{path} lies in the folder {folder!r}, which does not read as column=value; rename the folder")
    return name, value
