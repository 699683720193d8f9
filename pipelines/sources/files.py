"""Files at any URI: their listing, shared by Spark's tasks, and their bytes, read by the task that needs them."""

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyarrow as pa
from fsspec import AbstractFileSystem
from pyspark.sql import SparkSession

from cnnlib.errors import SourceError, first_line
from cnnlib.image_set.contract import CODE, MESSAGE, SIZE_BYTES
from cnnlib.image_set.writer import CONTENT
from cnnlib.storage.folder import Folder, is_local, open_folder
from pipelines.sources.source import IMAGES_SCHEMA, Entry, collect_from_tasks, portions

# When a file was written last, or as what, by the names that fsspec's file systems have for it.
_WRITTEN = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")
# How the message of a reject begins that may be read another time: storage was at fault, or rights were.
READ_FAILED = "it cannot be read: "
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

    Spark's own listing would leave out files without bytes, and names that begin with _ or a dot. Raises SourceError
    for a folder that cannot be listed.
    """
    if is_local(folder):
        subfolders, found = _walk_level(folder, "")
    else:
        subfolders, found = _list_level(folder)
    few = len(subfolders) <= _FOLDERS_LISTED_HERE
    here = [name for name in subfolders if few or not _is_utf8(name)]
    found += [file for name in here for file in _list_subfolder(folder, name)]
    shared = [name for name in subfolders if not few and _is_utf8(name)]
    if not shared:
        return sorted(found)
    uri = folder.uri

    def list_share(rows: Iterator[Entry]) -> Iterator[pa.RecordBatch]:
        opened = open_folder(uri)
        # This worker may have listed it for an ingest before.
        opened.fs.invalidate_cache()
        files = [file for row in rows for file in _list_subfolder(opened, row["name"])]
        yield pa.RecordBatch.from_pylist([file._asdict() for file in files], schema=_LISTING_SCHEMA)

    tasks = len(shared) // _FOLDERS_A_TASK
    listed = collect_from_tasks(spark, pa.table({"name": shared}), tasks, list_share, _LISTING_SCHEMA)
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
            paths, sizes = [path for _, path in found], [entry[SIZE_BYTES] for entry, _ in found]
            for (entry, _), content in zip(found, _contents(fs, paths, sizes, max_bytes), strict=True):
                entry.update(_outcome(content, max_bytes))
        yield pa.RecordBatch.from_pylist(chosen, schema=IMAGES_SCHEMA)


@contextmanager
def opened_file(folder: Folder, name: str) -> Iterator[Any]:
    """A file of a folder, open. Raises SourceError where it is gone, or cannot be read to its end."""
    try:
        with folder.fs.open(folder.path(name), "rb") as file:
            yield file
    except OSError as error:
        raise SourceError(f"{folder.path(name)} cannot be read: {first_line(error)}") from error


def _contents(
    fs: AbstractFileSystem, paths: list[str], sizes: list[int | None], max_bytes: int
) -> list[bytes | Exception]:
    """The bytes of files, or why they cannot be read; of one above the limit, as many as show that."""
    most = max_bytes + 1
    # Python makes room for as many bytes as it is asked for, so ask for those that the file had when it was listed.
    ends = [most if size is None else min(size + 1, most) for size in sizes]
    contents = fs.cat_ranges(paths, 0, ends, on_error="return")
    grown = [
        number
        for number, content in enumerate(contents)
        if not isinstance(content, Exception) and len(content) == ends[number] < most
    ]
    if grown:
        again = fs.cat_ranges([paths[number] for number in grown], 0, most, on_error="return")
        for number, content in zip(grown, again, strict=True):
            contents[number] = content
    return contents


def _outcome(content: bytes | Exception, max_bytes: int) -> Entry:
    if isinstance(content, FileNotFoundError):
        return {CODE: "missing_file", MESSAGE: "it has gone since the source was listed, or its name is no UTF-8"}
    if isinstance(content, Exception):
        return {CODE: "unreadable", MESSAGE: f"{READ_FAILED}{first_line(content)}"}
    if len(content) > max_bytes:
        return {CODE: "too_many_bytes", MESSAGE: f"it has grown beyond the limit of {max_bytes} bytes"}
    return {CONTENT: content, SIZE_BYTES: len(content)}


def _list_level(folder: Folder) -> tuple[list[str], list[ListedFile]]:
    """The subfolders right below a folder, and the files."""
    folder.fs.invalidate_cache()
    subfolders, found = [], []
    for info in folder.fs.ls(folder.root, detail=True):
        if info["type"] == "directory":
            subfolders.append(_relative(folder, info["name"].rstrip("/")))
        else:
            found.append(_listed_file(_relative(folder, info["name"]), info))
    return subfolders, found


def _list_subfolder(folder: Folder, name: str) -> list[ListedFile]:
    """All files below a subfolder."""
    if is_local(folder):
        return list(_walk(folder, name, (os.path.realpath(folder.root),)))
    found = folder.fs.find(folder.path(name), withdirs=False, detail=True)
    return [_listed_file(_relative(folder, path), info) for path, info in found.items()]


def _walk(folder: Folder, name: str, above: tuple[str, ...]) -> Iterator[ListedFile]:
    """All files below a local folder. Links are followed, which fsspec does not, but for those to a folder above."""
    real = os.path.realpath(folder.path(name))
    if real in above:
        return
    subfolders, found = _walk_level(folder, name)
    yield from found
    for subfolder in subfolders:
        yield from _walk(folder, subfolder, (*above, real))


def _walk_level(folder: Folder, name: str) -> tuple[list[str], list[ListedFile]]:
    """The subfolders right below a local folder, and the files.

    Raises SourceError for a folder that cannot be listed, which fsspec would take for an empty one.
    """
    subfolders, found = [], []
    try:
        with os.scandir(folder.path(name)) as entries:
            for entry in entries:
                path = f"{name}/{entry.name}".lstrip("/")
                if _is_folder(entry):
                    subfolders.append(path)
                else:
                    found.append(_listed_file(path, _info(entry)))
    except OSError as error:
        raise SourceError(
            f"source.path={folder.uri}: {folder.path(name)} cannot be listed ({error.strerror}); change its rights, or "
            "move it away"
        ) from error
    return subfolders, found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            return False  # a link to itself, or through a file
        raise


def _info(entry: os.DirEntry[str]) -> dict[str, Any]:
    try:
        status = entry.stat()
    except OSError:
        status = entry.stat(follow_symlinks=False)  # a link to nothing: who reads it will see
    return {"size": status.st_size, "mtime": status.st_mtime}


def _relative(folder: Folder, path: str) -> str:
    return path[len(folder.root) + 1 :]


def _is_utf8(name: str) -> bool:
    """Whether Java and Arrow can spell a name."""
    return name == name.encode("utf-8", "replace").decode()


def _listed_file(name: str, info: Mapping[str, Any]) -> ListedFile:
    # A name that is no UTF-8 is shown with what it has in its place.
    shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return ListedFile(shown, info["size"], version_of(info))
