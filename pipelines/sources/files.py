"""Files at any URI: tasks share the work of listing them, and the task that needs a file's bytes reads them."""

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyarrow as pa
from fsspec import AbstractFileSystem
from pyspark.sql import SparkSession

from cnnlib.errors import SourceError, first_line
from cnnlib.image_set.contract import CODE, MESSAGE, SIZE_BYTES
from cnnlib.image_set.writer import CONTENT
from cnnlib.sealed.frozen.images import FIRST_BYTES, begins_like_an_image
from cnnlib.sources.image_folder import is_image_name
from cnnlib.sources.left_out import RAW_ENDINGS, count_kinds, ending_of, is_junk, why_left_out
from cnnlib.storage.folder import Folder, is_local, open_folder
from pipelines.sources.source import IMAGES_SCHEMA, Entry, collect_from_tasks, in_batches

# The time or id of a file's last write, by the names that fsspec's file systems give it.
_WRITTEN = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")
# A reject whose message begins like this may be readable another time: storage failed, or access was denied.
READ_FAILED = "it cannot be read: "
# Like Spark itself, list up to this many folders in the driver, and more of them in tasks.
_FOLDERS_LISTED_HERE = 32
_FOLDERS_PER_TASK = 8
# Look at the first bytes of up to this many files in the driver, and of more of them in tasks.
_FILES_OPENED_HERE = 64
_FILES_OPENED_PER_TASK = 2048
_NAMES_SCHEMA = pa.schema([("name", pa.string())])
_LISTING_SCHEMA = pa.schema([("name", pa.string()), ("size_bytes", pa.int64()), ("version", pa.string())])


class ListedFile(NamedTuple):
    """A file, by its path relative to the folder. `version` changes when the file is written again."""

    name: str
    size_bytes: int
    version: str


def open_source_folder(path: str) -> Folder:
    """Open the folder of a source. Raises SourceError if it is not a folder, or cannot be read."""
    folder = open_folder(path)
    if not folder.fs.isdir(folder.root):
        raise SourceError(f"source.path={path} is not a folder that can be read; check the path")
    return folder


def check_path(path: str) -> None:
    """Raise SourceError if there is nothing at the path of a source."""
    folder = open_folder(path)
    try:
        there = folder.fs.exists(folder.root)
    except OSError as error:
        raise SourceError(f"source.path={path} cannot be read: {first_line(error)}") from error
    if not there:
        raise SourceError(f"source.path={path} does not exist; check the path")


def infos_by_name(folder: Folder) -> dict[str, Mapping[str, Any]]:
    """Return the file system's description of each file in a folder, by name.

    Files in subfolders are not there, nor files that systems put beside others.
    """
    infos = {info["name"].rsplit("/", 1)[-1]: info for info in folder.fs.ls(folder.root, detail=True)}
    return {name: info for name, info in infos.items() if not is_junk(name)}


def list_files(spark: SparkSession, folder: Folder) -> list[ListedFile]:
    """List all files below a folder, sorted by name. If it has many subfolders, Spark's tasks list them.

    Spark's own listing would leave out empty files, and names that begin with _ or a dot. Raises SourceError if a
    folder cannot be listed.
    """
    if is_local(folder):
        subfolders, found = _walk_level(folder, "")
    else:
        subfolders, found = _list_level(folder)
    few = len(subfolders) <= _FOLDERS_LISTED_HERE
    here = [name for name in subfolders if few or not _is_utf8(name)]
    found += [file for name in here for file in _list_subfolder(folder, name)]
    in_tasks = [name for name in subfolders if not few and _is_utf8(name)]
    if not in_tasks:
        return sorted(found)
    uri = folder.uri

    def list_subfolders(rows: Iterator[Entry]) -> Iterator[pa.RecordBatch]:
        opened = open_folder(uri)
        # This Python process may have listed the folder for an earlier ingest.
        opened.fs.invalidate_cache()
        files = [file for row in rows for file in _list_subfolder(opened, row["name"])]
        yield pa.RecordBatch.from_pylist([file._asdict() for file in files], schema=_LISTING_SCHEMA)

    tasks = len(in_tasks) // _FOLDERS_PER_TASK
    listed = collect_from_tasks(spark, pa.table({"name": in_tasks}), tasks, list_subfolders, _LISTING_SCHEMA)
    return sorted([*found, *map(ListedFile._make, listed)])


class SortedFiles(NamedTuple):
    """The files of a folder: those that are images, and those that are left out, each with the reason or its ending."""

    images: list[ListedFile]
    left_out: dict[str, str]

    @property
    def counts(self) -> Counter[str]:
        """Number of files left out, by reason or ending."""
        return count_kinds(self.left_out.values())


def find_images(spark: SparkSession, folder: Folder, listed: Sequence[ListedFile]) -> SortedFiles:
    """Find the images among the files of a folder.

    Hidden files and those of systems are left out. A file counts as an image by its ending, and if the ending is not
    that of an image, by its first bytes.
    """
    left_out = {file.name: why for file in listed if (why := why_left_out(file.name)) is not None}
    others = [file for file in listed if file.name not in left_out]
    unknown = [file for file in others if not is_image_name(file.name)]
    openable = [file.name for file in unknown if file.size_bytes and ending_of(file.name) not in RAW_ENDINGS]
    found = _images_by_content(spark, folder, openable)
    left_out |= {file.name: ending_of(file.name) for file in unknown if file.name not in found}
    return SortedFiles([file for file in others if file.name not in left_out], left_out)


def _images_by_content(spark: SparkSession, folder: Folder, names: Sequence[str]) -> set[str]:
    """Return the files that begin like an image, and those that storage failed to give: reading them will show that."""
    if len(names) <= _FILES_OPENED_HERE:
        return _begin_like_images(folder, names)
    uri = folder.uri

    def look(rows: Iterator[Entry]) -> Iterator[pa.RecordBatch]:
        found = _begin_like_images(open_folder(uri), [row["name"] for row in rows])
        yield pa.RecordBatch.from_pylist([{"name": name} for name in sorted(found)], schema=_NAMES_SCHEMA)

    tasks = 1 + len(names) // _FILES_OPENED_PER_TASK
    table = pa.table({"name": list(names)}, schema=_NAMES_SCHEMA)
    return {row["name"] for row in collect_from_tasks(spark, table, tasks, look, _NAMES_SCHEMA)}


def _begin_like_images(folder: Folder, names: Sequence[str]) -> set[str]:
    if not names:
        return set()
    paths = [folder.path(name) for name in names]
    contents = folder.fs.cat_ranges(paths, 0, FIRST_BYTES, on_error="return")
    return {
        name
        for name, content in zip(names, contents, strict=True)
        if (begins_like_an_image(content) if isinstance(content, bytes) else not isinstance(content, FileNotFoundError))
    }


def version_of(info: Mapping[str, Any]) -> str:
    """Return a text that changes when a file is written again; `info` is the file system's description of the file."""
    written = next((str(info[name]) for name in _WRITTEN if info.get(name)), "")
    return f"{info['size']}-{written}"


def read_files(
    entries: Iterable[Entry], locate: Callable[[Entry], tuple[AbstractFileSystem, str]], max_bytes: int
) -> Iterator[pa.RecordBatch]:
    """Read image files in a task, and yield them as batches of IMAGES_SCHEMA. No bytes pass through the JVM.

    `entries` have the columns of IMAGES_SCHEMA except CONTENT. `locate` returns the file system and path of an entry;
    it is called for entries without CODE. A file that was removed or cannot be read gets a code, and the others are
    read. The files of a batch are requested together, which saves time on an object store.
    """
    for batch in in_batches(entries, lambda entry: entry[SIZE_BYTES] or 0):
        located: dict[AbstractFileSystem, list[tuple[Entry, str]]] = {}
        for entry in batch:
            if entry.get(CODE) is None:
                fs, path = locate(entry)
                located.setdefault(fs, []).append((entry, path))
        for fs, found in located.items():
            paths, sizes = [path for _, path in found], [entry[SIZE_BYTES] for entry, _ in found]
            for (entry, _), content in zip(found, _contents(fs, paths, sizes, max_bytes), strict=True):
                entry.update(_columns_of(content, max_bytes))
        yield pa.RecordBatch.from_pylist(batch, schema=IMAGES_SCHEMA)


@contextmanager
def opened_file(folder: Folder, name: str) -> Iterator[Any]:
    """Open a file of a folder for a `with` block. Raises SourceError if it is missing or cannot be read to its end."""
    try:
        with folder.fs.open(folder.path(name), "rb") as file:
            yield file
    except OSError as error:
        raise SourceError(f"{folder.path(name)} cannot be read: {first_line(error)}") from error


def read_whole_file(uri: str, name: str) -> bytes:
    """Read a file of the folder at a URI. Raises SourceError if it is missing or cannot be read."""
    with opened_file(open_folder(uri), name) as file:
        return file.read()


def _contents(
    fs: AbstractFileSystem, paths: list[str], sizes: list[int | None], max_bytes: int
) -> list[bytes | Exception]:
    """Return the bytes of each file, or the error; of a file above the limit, just enough bytes to show that."""
    most = max_bytes + 1
    # Python allocates as many bytes as it is asked for, so ask for the size that the file had when it was listed.
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


def _columns_of(content: bytes | Exception, max_bytes: int) -> Entry:
    """Return the columns of an entry that its content decides."""
    if isinstance(content, FileNotFoundError):
        return {CODE: "missing_file", MESSAGE: "it has gone since the source was listed, or its name is not UTF-8"}
    if isinstance(content, Exception):
        return {CODE: "unreadable", MESSAGE: f"{READ_FAILED}{first_line(content)}"}
    if len(content) > max_bytes:
        return {CODE: "too_many_bytes", MESSAGE: f"it has grown beyond the limit of {max_bytes} bytes"}
    return {CONTENT: content, SIZE_BYTES: len(content)}


def _list_level(folder: Folder) -> tuple[list[str], list[ListedFile]]:
    """List the subfolders and the files directly in a folder."""
    folder.fs.invalidate_cache()
    subfolders, found = [], []
    for info in folder.fs.ls(folder.root, detail=True):
        if info["type"] == "directory":
            subfolders.append(_relative(folder, info["name"].rstrip("/")))
        else:
            found.append(_listed_file(_relative(folder, info["name"]), info))
    return subfolders, found


def _list_subfolder(folder: Folder, name: str) -> list[ListedFile]:
    """List all files below a subfolder."""
    if is_local(folder):
        return list(_walk(folder, name, (os.path.realpath(folder.root),)))
    found = folder.fs.find(folder.path(name), withdirs=False, detail=True)
    return [_listed_file(_relative(folder, path), info) for path, info in found.items()]


def _walk(folder: Folder, name: str, above: tuple[str, ...]) -> Iterator[ListedFile]:
    """Yield all files below a local folder.

    It follows links, which fsspec does not, except links to a folder above.
    """
    real = os.path.realpath(folder.path(name))
    if real in above:
        return
    subfolders, found = _walk_level(folder, name)
    yield from found
    for subfolder in subfolders:
        yield from _walk(folder, subfolder, (*above, real))


def _walk_level(folder: Folder, name: str) -> tuple[list[str], list[ListedFile]]:
    """List the subfolders and the files directly in a local folder.

    Raises SourceError if it cannot be listed; fsspec would take it for an empty folder.
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
        status = entry.stat(follow_symlinks=False)  # a link to nothing; reading it will show that
    return {"size": status.st_size, "mtime": status.st_mtime}


def _relative(folder: Folder, path: str) -> str:
    return path[len(folder.root) + 1 :]


def _is_utf8(name: str) -> bool:
    """Return whether Java and Arrow can hold a name."""
    return name == name.encode("utf-8", "replace").decode()


def _listed_file(name: str, info: Mapping[str, Any]) -> ListedFile:
    # Bytes that are not UTF-8 are shown as escapes.
    shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return ListedFile(shown, info["size"], version_of(info))
