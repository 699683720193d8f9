"""Folders at any URI (local, s3, gs, abfs, hdfs …) through fsspec, and publishing into them whole or not at all.

A published folder holds data files and one JSON file that names them. Data files have names that are never used
twice, and the JSON file is written last and atomically: it is the commit. Readers take only what it names; files
that a dead or replaced run left behind are removed after the next commit.
"""

import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import fsspec

from cnnlib.errors import ConfigError, OutputExistsError

DBFS_MOUNT = "/dbfs"
# For people, beside the JSON file.
REPORT = "report.html"


@dataclass(frozen=True)
class Folder:
    """A folder on a file system: `uri` as the user may pass it on, `fs` and `root` as fsspec sees it."""

    uri: str
    fs: fsspec.AbstractFileSystem
    root: str

    def path(self, relative: str) -> str:
        """The path of a file in the folder, for `fs`."""
        return f"{self.root}/{relative}"

    def url(self, relative: str) -> str:
        """The URL of a file in the folder, scheme included, as petastorm wants it."""
        return self.fs.unstrip_protocol(self.path(relative))

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Read a JSON object, or give None where there is no such file."""
        try:
            return json.loads(self.fs.cat_file(self.path(name)))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def files(self) -> list[str]:
        """All files below the folder, relative to it and sorted; empty where the folder does not exist."""
        return sorted(self.file_sizes())

    def file_sizes(self) -> dict[str, int]:
        """Bytes of every file below the folder, by its path relative to it."""
        self.fs.invalidate_cache()
        found = self.fs.find(self.root, withdirs=False, detail=True)
        return {path[len(self.root) + 1 :]: info["size"] for path, info in found.items()}


def open_folder(uri: str) -> Folder:
    """Open a path or URI; a relative path is taken from the working folder. Nothing is made or read.

    Raises ConfigError when no file system for the scheme is installed.
    """
    if uri.startswith("dbfs:/"):
        return _open_dbfs(uri)
    if re.match(r"(?!file:)\w{2,}:/(?!/)", uri):
        # It would be taken for a folder of that name here.
        raise ConfigError(f"{uri} names a scheme with one slash; write {uri.replace(':/', '://', 1)}")
    try:
        fs, root = fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"{uri} cannot be opened: {error}") from error
    folder = Folder(uri.rstrip("/"), fs, root.rstrip("/"))
    if is_local(folder):
        root = os.path.normpath(root).rstrip("/")
        return Folder(root, fs, root)
    return folder


def _open_dbfs(uri: str) -> Folder:
    """Databricks mounts its file system on every machine, for all that is not Spark."""
    if not os.path.isdir(DBFS_MOUNT):
        raise ConfigError(f"{uri} cannot be opened: this machine has no {DBFS_MOUNT}, as those of Databricks have")
    path = uri.removeprefix("dbfs:").strip("/")
    return Folder(f"dbfs:/{path}", fsspec.filesystem("file"), f"{DBFS_MOUNT}/{path}".rstrip("/"))


def is_local(folder: Folder) -> bool:
    """Whether a folder is on this machine's own file system."""
    protocol = folder.fs.protocol
    return "file" in (protocol if isinstance(protocol, tuple) else (protocol,))


def refuse_foreign_files(folder: Folder, commit_name: str) -> list[str]:
    """Refuse a folder with files that are not ours, for only what this project wrote is ever replaced.

    Gives the names of the files there. Raises OutputExistsError, or ConfigError for a path that is a file.
    """
    if folder.fs.isfile(folder.root):
        raise ConfigError(f"output.path={folder.uri} is a file; name a folder")
    names = folder.files()
    foreign = [name for name in names if not _is_ours(name, commit_name)]
    if foreign:
        raise OutputExistsError(
            f"output.path={folder.uri} holds files that are not ours, such as {foreign[0]}; choose another folder"
        )
    return names


def refuse_occupied(folder: Folder, commit_name: str, *, overwrite: bool) -> None:
    """Refuse to write where something is published already, unless it may be replaced.

    Raises OutputExistsError, or ConfigError for a path that is a file.
    """
    # Data files without a commit are what a dead run left; the next commit removes them.
    if commit_name in refuse_foreign_files(folder, commit_name) and not overwrite:
        raise OutputExistsError(
            f"output.path={folder.uri} has a {commit_name} already; "
            "choose another folder, or pass --output.overwrite true"
        )


def make_writable(folder: Folder, commit_name: str) -> None:
    """Make the folder, and be sure that files can be written to it, before hours of work depend on it.

    Raises ConfigError where that is not so.
    """
    if set("#?") & set(folder.root):
        raise ConfigError(
            f"output.path={folder.uri} has a # or a ?, which petastorm cannot read; choose another folder"
        )
    # Named like an unfinished commit: should this process die here, the next run knows the file for ours.
    probe = folder.path(_temporary(commit_name))
    try:
        folder.fs.makedirs(folder.root, exist_ok=True)
        folder.fs.pipe_file(probe, b"")
        folder.fs.rm_file(probe)
    except OSError as error:
        raise ConfigError(
            f"output.path={folder.uri} cannot be written ({error.strerror or error}); choose another folder"
        ) from error


@contextmanager
def try_writing(folder: Folder, commit_name: str) -> Iterator[None]:
    """Make the folder writable for the body, as `make_writable` does; folders that were not there before go again."""
    made = []
    if is_local(folder):
        path = folder.root
        while not os.path.lexists(path):
            made.append(path)
            path = os.path.dirname(path)
    try:
        make_writable(folder, commit_name)
        yield
    finally:
        for path in made:
            with suppress(OSError):  # somebody else has put something there meanwhile
                os.rmdir(path)


def new_run_id() -> str:
    """A short id that makes the names of one run's files unlike any other's."""
    return uuid.uuid4().hex[:12]


def part_name(run_id: str, task: int, attempt: int) -> str:
    """The name of a data file. Two attempts at one task never write to the same name.

    >>> part_name("0f3a", 7, 0)
    'part-00007-0f3a-0.parquet'
    """
    return f"part-{task:05d}-{run_id}-{attempt}.parquet"


def commit(folder: Folder, commit_name: str, content: dict[str, Any], keep: set[str]) -> None:
    """Publish: write the JSON file atomically, then remove our data files that it does not `keep`.

    Raises OutputExistsError, and publishes nothing, when a file to keep is not there.
    """
    missing = sorted(keep - set(folder.files()))
    if missing:
        raise OutputExistsError(
            f"output.path={folder.uri} lacks {missing[0]}, which a task wrote: either another job writes there too, or "
            "the folder is not the same one on every machine; nothing was published"
        )
    write_atomically(folder, commit_name, json.dumps(content, indent=2) + "\n")
    discard(folder, [name for name in folder.files() if name not in keep | {commit_name}], commit_name)


def discard_unpublished(folder: Folder, commit_name: str, run_id: str, keep: Iterable[str] = ()) -> None:
    """Remove the data files of a run that failed, but for those to `keep`.

    A run may also fail after its commit, while it clears away what it replaced: then its files are the set.
    """
    if run_id in json.dumps(folder.read_json(commit_name)):
        return
    discard(folder, [name for name in folder.files() if run_id in name and name not in set(keep)], commit_name)


def discard(folder: Folder, names: list[str], commit_name: str) -> None:
    """Remove data files of ours from a folder, and no others."""
    for name in names:
        if _is_ours(name, commit_name):
            folder.fs.rm_file(folder.path(name))


def _is_ours(name: str, commit_name: str) -> bool:
    base = name.rsplit("/", 1)[-1]
    # Spark's own parts are called part-00000-<uuid>-c000.snappy.parquet: not so.
    unfinished = rf"({re.escape(commit_name)}|{re.escape(REPORT)})\.[0-9a-f]+\.tmp"
    return name in (commit_name, REPORT) or bool(
        re.fullmatch(rf"part-\d{{5,}}-[0-9a-f]+-\d+\.parquet|{unfinished}", base)
    )


def write_atomically(folder: Folder, name: str, text: str) -> None:
    """Write a text file such that readers see the old one or the new one, whole."""
    final = folder.path(name)
    if not is_local(folder):
        # An object store shows an object only when all of it has arrived.
        folder.fs.pipe_file(final, text.encode())
        return
    os.makedirs(folder.root, exist_ok=True)
    temporary = folder.path(_temporary(name))
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, final)


def _temporary(commit_name: str) -> str:
    return f"{commit_name}.{new_run_id()}.tmp"
