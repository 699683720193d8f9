"""Folders at any URI (local, s3, gs, abfs, hdfs …) through fsspec, and how a job publishes a whole folder or nothing.

A published folder has data files and one JSON file that names them. The name of a data file is never used twice. The
JSON file is written last and atomically: it is the commit. Readers take only the files that it names. The next commit
removes files that a dead or replaced run has left behind.
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

from cnnlib.errors import ConfigError, OutputExistsError, SparkcnnError

DBFS_MOUNT = "/dbfs"
# A page for people, beside the JSON file.
REPORT = "report.html"


@dataclass(frozen=True)
class Folder:
    """A folder on any file system, as `open_folder` returns it.

    `uri` is the form to show and to pass on, for example to Spark. `fs` is the fsspec file system, and `root` the
    folder's path in it.

    >>> sets = open_folder("memory://bucket/sets")
    >>> sets.fs.pipe_file(sets.path("digits.json"), b'{"rows": 3}')
    >>> sets.files(), sets.read_json("digits.json"), sets.read_json("letters.json")
    (['digits.json'], {'rows': 3}, None)
    """

    uri: str
    fs: fsspec.AbstractFileSystem
    root: str

    def path(self, relative: str) -> str:
        """Return the path of a file in the folder, for use with `fs`."""
        return f"{self.root}/{relative}"

    def url(self, relative: str) -> str:
        """Return the URL of a file in the folder, with its scheme, as petastorm needs it."""
        return self.fs.unstrip_protocol(self.path(relative))

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Read a JSON object. Return None if there is no such file."""
        try:
            return json.loads(self.fs.cat_file(self.path(name)))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def files(self) -> list[str]:
        """List all files below the folder, relative to it and sorted; empty if the folder does not exist."""
        self.fs.invalidate_cache()
        return sorted(path[len(self.root) + 1 :] for path in self.fs.find(self.root))


def open_folder(uri: str) -> Folder:
    """Open a path or URI. A relative path starts at the working directory. Nothing is created or read.

    Raises ConfigError if no file system for the scheme is installed.
    """
    if uri.startswith("dbfs:/"):
        path = "/" + uri.removeprefix("dbfs:").lstrip("/")
        # Volumes of Unity Catalog are folders of every machine, and dbfs:/Volumes is another name for them.
        return open_folder(path) if path.startswith("/Volumes/") else _open_dbfs(path)
    if re.match(r"(?!file:)\w{2,}:/(?!/)", uri):
        # fsspec would take this for a local folder whose name contains a colon.
        raise ConfigError(f"{uri} has one slash after its scheme; write {uri.replace(':/', '://', 1)}")
    try:
        fs, root = fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"{uri} cannot be opened ({error}); check the URI, or install its file system") from error
    folder = Folder(uri.rstrip("/"), fs, root.rstrip("/"))
    if is_local(folder):
        root = os.path.normpath(root).rstrip("/")
        return Folder(root, fs, root)
    return folder


def _open_dbfs(path: str) -> Folder:
    """Open a path of DBFS at the folder where Databricks mounts it on every machine, for all readers but Spark."""
    if not os.path.isdir(DBFS_MOUNT):
        raise ConfigError(
            f"dbfs:{path} cannot be opened: this machine has no {DBFS_MOUNT}, which Databricks mounts; use another "
            "path here"
        )
    path = path.rstrip("/")
    return Folder(f"dbfs:{path or '/'}", fsspec.filesystem("file"), f"{DBFS_MOUNT}{path}")


def is_local(folder: Folder) -> bool:
    """Return whether a folder is on the file system of this machine."""
    protocol = folder.fs.protocol
    return "file" in (protocol if isinstance(protocol, tuple) else (protocol,))


def list_own_files(folder: Folder, commit_name: str) -> list[str]:
    """List the files of an output folder, all of which must be ours: a job replaces only what this project wrote.

    Raises OutputExistsError if there is any other file, and ConfigError if the path is a file.
    """
    if folder.fs.isfile(folder.root):
        raise ConfigError(f"output.path={folder.uri} is a file; name a folder")
    names = folder.files()
    foreign = [name for name in names if not _is_own_file(name, commit_name)]
    if foreign:
        raise OutputExistsError(
            f"output.path={folder.uri} has files that sparkcnn did not write, such as {foreign[0]}; choose another "
            "folder"
        )
    return names


def check_output_is_free(folder: Folder, commit_name: str, *, overwrite: bool) -> None:
    """Raise OutputExistsError if something is already published in the folder and `overwrite` is not set.

    Raises ConfigError if the path is a file.
    """
    # Data files without a commit come from a dead run. The next commit removes them.
    if commit_name in list_own_files(folder, commit_name) and not overwrite:
        raise OutputExistsError(
            f"output.path={folder.uri} already has a {commit_name}; choose another folder, or pass "
            "--output.overwrite true"
        )


def make_writable(folder: Folder, commit_name: str) -> None:
    """Create the folder and write a file to it, before hours of work depend on that.

    Raises ConfigError if that fails.
    """
    if set("#?") & set(folder.root):
        raise ConfigError(
            f"output.path={folder.uri} has a # or a ?, which petastorm cannot read; choose another folder"
        )
    # It has the name of an unfinished commit. If this process dies here, the next run knows the file as ours.
    probe = folder.path(_temporary_name(commit_name))
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
    """Make the folder writable for a `with` block; see `make_writable`. Afterwards, remove the folders it made."""
    created = []
    if is_local(folder):
        path = folder.root
        while not os.path.lexists(path):
            created.append(path)
            path = os.path.dirname(path)
    try:
        make_writable(folder, commit_name)
        yield
    finally:
        for path in created:
            with suppress(OSError):  # another process has put files there
                os.rmdir(path)


@contextmanager
def writing_run(folder: Folder, commit_name: str, run_id: str) -> Iterator[None]:
    """Make the folder writable for the `with` block of a run; see `make_writable`.

    If the block fails, folders that it leaves empty are removed. Raises OutputExistsError if the block fails because
    another job has published there in the meantime, and removed the files of this run.
    """
    with try_writing(folder, commit_name):
        before = _content(folder, commit_name)
        try:
            yield
        except BaseException as error:
            _remove_empty_subfolders(folder)
            if isinstance(error, SparkcnnError) or not isinstance(error, Exception):
                raise
            now = _content(folder, commit_name)
            if now != before and run_id.encode() not in now:
                raise OutputExistsError(
                    f"another job has published at output.path={folder.uri} while this one was at work; this job "
                    "published nothing: run it again, or choose another folder"
                ) from error
            raise


def _content(folder: Folder, name: str) -> bytes:
    """Return the bytes of a file, which may be damaged; none if it is missing."""
    try:
        return folder.fs.cat_file(folder.path(name))
    except (FileNotFoundError, NotADirectoryError):
        return b""


def _remove_empty_subfolders(folder: Folder) -> None:
    """Remove the empty folders of an output on this machine. Object stores have no folders of their own."""
    if not is_local(folder):
        return
    with suppress(OSError):
        for entry in os.scandir(folder.root):
            if entry.is_dir(follow_symlinks=False):
                with suppress(OSError):  # it is not empty
                    os.rmdir(entry.path)


def new_run_id() -> str:
    """Return a short id that no other run has, for the names of one run's files."""
    return uuid.uuid4().hex[:12]


def part_name(run_id: str, task: int, attempt: int) -> str:
    """Return the name of a data file. Two attempts of one task never write to the same name.

    >>> part_name("0f3a", 7, 0)
    'part-00007-0f3a-0.parquet'
    """
    return f"part-{task:05d}-{run_id}-{attempt}.parquet"


def commit(folder: Folder, commit_name: str, content: dict[str, Any], keep: set[str]) -> None:
    """Publish: write the JSON file atomically, then remove those of our data files that are not in `keep`.

    Raises OutputExistsError, and publishes nothing, if a file of `keep` is missing.
    """
    missing = sorted(keep - set(folder.files()))
    if missing:
        raise OutputExistsError(
            f"output.path={folder.uri} lacks {missing[0]}, which a task wrote; nothing was published. Either another "
            "job writes there too, or the path is not the same folder on every machine: choose a shared folder that no "
            "other job uses"
        )
    write_atomically(folder, commit_name, json.dumps(content, indent=2) + "\n")
    remove_own_files(folder, [name for name in folder.files() if name not in keep | {commit_name}], commit_name)


def remove_unpublished(folder: Folder, commit_name: str, run_id: str, keep: Iterable[str] = ()) -> None:
    """Remove the data files of a run that failed, except those in `keep`.

    A run can also fail after its commit, while it removes the files that it replaced. Then its files are the published
    ones, and all stay.
    """
    if run_id.encode() in _content(folder, commit_name):
        return
    remove_own_files(folder, [name for name in folder.files() if run_id in name and name not in set(keep)], commit_name)


def remove_own_files(folder: Folder, names: list[str], commit_name: str) -> None:
    """Remove the given files from a folder, but leave those that this project did not write."""
    for name in names:
        if _is_own_file(name, commit_name):
            folder.fs.rm_file(folder.path(name))


def _is_own_file(name: str, commit_name: str) -> bool:
    base = name.rsplit("/", 1)[-1]
    # Spark's own parts have other names: part-00000-<uuid>-c000.snappy.parquet.
    unfinished = rf"({re.escape(commit_name)}|{re.escape(REPORT)})\.[0-9a-f]+\.tmp"
    return name in (commit_name, REPORT) or bool(
        re.fullmatch(rf"part-\d{{5,}}-[0-9a-f]+-\d+\.parquet|{unfinished}", base)
    )


def write_atomically(folder: Folder, name: str, text: str) -> None:
    """Write a text file so that readers see either the whole old file or the whole new one."""
    final = folder.path(name)
    if not is_local(folder):
        # An object store shows an object only after all of it has arrived.
        folder.fs.pipe_file(final, text.encode())
        return
    os.makedirs(folder.root, exist_ok=True)
    temporary = folder.path(_temporary_name(name))
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, final)


def _temporary_name(name: str) -> str:
    return f"{name}.{new_run_id()}.tmp"
