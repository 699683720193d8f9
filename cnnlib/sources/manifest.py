"""Manifests: tables that name images by path, as annotation tools write them: CSV, JSON lines or Parquet.

The columns are `path`, `label`, and optionally `split` (train, val, test, or empty) and `group`. Images of one group
stay in one split, for example all images of a patient. A path is absolute, or relative to the manifest's folder, which
it must not leave.
"""

import os
import posixpath
import re
from collections.abc import Iterable
from typing import Literal

from cnnlib.errors import ImageError, SourceError
from cnnlib.image_set.contract import LABEL, PATH

SPLIT = "split"
GROUP = "group"

Format = Literal["csv", "jsonl", "parquet"]
FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
}

# "file:/a", "s3a://bucket/a", "dbfs:/a". A single letter would be a Windows drive.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(?=/)")
_SCHEME_AND_HOST = re.compile(rf"{_SCHEME.pattern}(//[^/]*)?")


def format_of(path: str, *, is_folder: bool = False) -> Format:
    """Return a manifest's format, by its ending; a folder has Parquet files. Raises SourceError for another ending.

    >>> format_of("labels.CSV"), format_of("a.b/labels.ndjson"), format_of("labels", is_folder=True)
    ('csv', 'jsonl', 'parquet')
    """
    ending = posixpath.splitext(path)[1].lower()
    if is_folder:
        return "parquet"
    if ending not in FORMATS:
        raise SourceError(
            f"{path} does not end like a manifest; name a file that ends in {', '.join(FORMATS)}, or a folder of "
            "Parquet files"
        )
    return FORMATS[ending]


def check_columns(names: Iterable[str], path: str, *, labelled: bool = True) -> None:
    """Raise SourceError if a manifest lacks a column that it must have. `names` are its columns.

    >>> check_columns(["path", "label", "width"], "a.csv")
    """
    found = list(names)
    missing = [name for name in (PATH, LABEL) if name not in found and (labelled or name != LABEL)]
    if missing:
        raise SourceError(
            f"{path} has no column {' and no column '.join(missing)}; its columns are {', '.join(found) or 'none'}. "
            f"A manifest needs {PATH}{f' and {LABEL}' if labelled else ''}, and may have {SPLIT} and {GROUP}"
        )


def resolve(path_in_manifest: str | None, manifest_folder: str) -> str:
    r"""Return the path of an image relative to the manifest's folder, without "." and ".."; or an absolute path or URI.

    An absolute path without a scheme gets the scheme and host of `manifest_folder`, if that has them. All other
    characters of a name stand for themselves: #, %, blanks, backslashes, characters of patterns.
    Raises ImageError(unreadable) if the path is empty, has a NUL byte, names a folder, or leads out of the folder.

    >>> resolve("cat/./a#1%20.jpg", "s3a://bucket/set"), resolve("cat/../b\\c.jpg", "/data")
    ('cat/a#1%20.jpg', 'b\\c.jpg')
    >>> resolve("/cat/a.jpg", "s3a://bucket/set"), resolve("dbfs:/cat/a.jpg", "/data")
    ('s3a://bucket/cat/a.jpg', 'dbfs:/cat/a.jpg')
    """
    if not path_in_manifest:
        raise ImageError("unreadable", "the path is empty")
    if "\0" in path_in_manifest:
        raise ImageError("unreadable", "the path has a NUL byte")
    if _SCHEME.match(path_in_manifest):
        return path_in_manifest
    normal = posixpath.normpath(path_in_manifest)
    if normal.startswith("/"):
        scheme_and_host = _SCHEME_AND_HOST.match(manifest_folder)
        return (scheme_and_host[0] if scheme_and_host else "") + "/" + normal.lstrip("/")
    if normal == ".." or normal.startswith("../"):
        raise ImageError("unreadable", "the path leads out of the manifest's folder; move the image, or give its URI")
    if normal == "." or path_in_manifest.endswith("/"):
        raise ImageError("unreadable", "the path names a folder")
    # "./file:/etc" is a folder called "file:". Without "./" it could not be told from a URI.
    if is_absolute(normal):
        raise ImageError("unreadable", "the path looks like a URI within the manifest's folder; rename the folder")
    return normal


def is_absolute(resolved: str) -> bool:
    """Return whether a result of `resolve` is an absolute path or a URI, and not relative to the manifest's folder.

    >>> is_absolute("/data/a.jpg"), is_absolute("file:/data/a.jpg"), is_absolute("data/a:b.jpg")
    (True, True, False)
    """
    return resolved.startswith("/") or _SCHEME.match(resolved) is not None


def links_out(local_path: str, root: str) -> bool:
    """Return whether a path on this machine leaves the folder `root` through symbolic links; `root` itself may be one.

    The answer holds for this moment only: a link can change before the image is opened.
    """
    real_root = os.path.realpath(root)
    return os.path.commonpath([os.path.realpath(local_path), real_root]) != real_root
