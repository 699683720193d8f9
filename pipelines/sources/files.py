"""Files at any URI: their listing, shared by Spark's tasks, and their bytes, read by the task that needs them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import pyarrow as pa
from fsspec import AbstractFileSystem
from pyspark.sql import SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from cnnlib.errors import first_line
from cnnlib.imageset import CODE, MESSAGE, SIZE_BYTES
from cnnlib.imageset_writer import CONTENT
from cnnlib.storage import Folder, open_folder
from pipelines.sources.source import IMAGES_SCHEMA, Entry, portions, shared_out

# When a file was written last, or as what, by the names that fsspec's file systems have for it.
_WRITTEN = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")
# As Spark itself, list so many folders here, and more of them in tasks.
_FOLDERS_LISTED_HERE = 32
_FOLDERS_A_TASK = 8
_LISTING_SCHEMA = pa.schema([("name", pa.string()), ("size_bytes", pa.int64()), ("version", pa.string())])


class ListedFile(NamedTuple):
    """A file by its path relative to the folder; `version` changes when it is written anew."""

    name: str
    size_bytes: int
    version: str


def list_files(spark: SparkSession, folder: Folder) -> list[ListedFile]:
    """List all files below a folder, in order. Where it has many subfolders, Spark's tasks share them.

    Spark's own listing would leave out files without bytes, and names that begin with _ or a dot.
    """
    folder.fs.invalidate_cache()
    subfolders, found = [], []
    for info in folder.fs.ls(folder.root, detail=True):
        # Asking of each would be a request each to an object store.
        if info["type"] == "directory" or (info["type"] != "file" and folder.fs.isdir(info["name"])):
            subfolders.append(info["name"].rstrip("/")[len(folder.root) + 1 :])
        else:
            found.append(_listed_file(folder, info["name"], info))
    if len(subfolders) <= _FOLDERS_LISTED_HERE:
        found += [file for name in subfolders for file in _list_subfolder(folder, name)]
        return sorted(found)
    uri = folder.uri

    def list_share(rows: Iterator[Entry]) -> Iterator[pa.RecordBatch]:
        opened = open_folder(uri)
        files = [file for row in rows for file in _list_subfolder(opened, row["name"])]
        yield pa.RecordBatch.from_pylist([file._asdict() for file in files], schema=_LISTING_SCHEMA)

    shares = shared_out(spark, pa.table({"name": subfolders}), len(subfolders) // _FOLDERS_A_TASK, list_share)
    listed = shares.places.mapInArrow(shares.read, from_arrow_schema(_LISTING_SCHEMA)).collect()
    return sorted([*found, *map(ListedFile._make, listed)])


def written(info: Mapping[str, Any]) -> str:
    """What a file system says of when, or as what, a file was written last; "" where it does not say."""
    return next((str(info[name]) for name in _WRITTEN if info.get(name)), "")


def version_of(info: Mapping[str, Any]) -> str:
    """What changes when a file is written anew."""
    return f"{info['size']}-{written(info)}"


def read_files(
    entries: Iterable[Entry], locate: Callable[[Entry], tuple[AbstractFileSystem, str]], max_bytes: int
) -> Iterator[pa.RecordBatch]:
    """The images of files, in batches of IMAGES_SCHEMA. For a task: no bytes go through the JVM.

    `entries` have columns of IMAGES_SCHEMA but for CONTENT; of those without CODE, `locate` says where the file is.
    What is gone or cannot be read when its turn comes gets a code, and does no harm to the others. An object store is
    asked for a batch's files at once.
    """
    for chosen in portions(entries, lambda entry: entry[SIZE_BYTES] or 0):
        places: dict[AbstractFileSystem, list[tuple[Entry, str]]] = {}
        for entry in chosen:
            if entry.get(CODE) is None:
                fs, path = locate(entry)
                places.setdefault(fs, []).append((entry, path))
        for fs, found in places.items():
            # A file may have grown since it was listed: read no more than shows that.
            contents = fs.cat_ranges([path for _, path in found], 0, max_bytes + 1, on_error="return")
            for (entry, _), content in zip(found, contents, strict=True):
                entry.update(_outcome(content, max_bytes))
        yield pa.RecordBatch.from_pylist(chosen, schema=IMAGES_SCHEMA)


def _outcome(content: bytes | Exception, max_bytes: int) -> Entry:
    if isinstance(content, FileNotFoundError):
        return {CODE: "missing_file", MESSAGE: "it has gone since the source was listed, or its name is no UTF-8"}
    if isinstance(content, Exception):
        return {CODE: "unreadable", MESSAGE: f"it cannot be read: {first_line(content)}"}
    if len(content) > max_bytes:
        return {CODE: "too_many_bytes", MESSAGE: f"it has grown beyond the limit of {max_bytes} bytes"}
    return {CONTENT: content, SIZE_BYTES: len(content)}


def _list_subfolder(folder: Folder, name: str) -> list[ListedFile]:
    found = folder.fs.find(folder.path(name), withdirs=False, detail=True)
    return [_listed_file(folder, path, info) for path, info in found.items()]


def _listed_file(folder: Folder, path: str, info: Mapping[str, Any]) -> ListedFile:
    # A name that is no UTF-8, which neither Java nor Arrow can spell, is shown with what it has in its place.
    name = path[len(folder.root) + 1 :].encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return ListedFile(name, info["size"], version_of(info))
