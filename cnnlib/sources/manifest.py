"""Manifests: tables that name images by path, as annotation tools write them: CSV, JSON or Parquet.

The columns are `path`, `label`, or as the settings call them, and optionally `split` (train, val or test, or another
usual name of these, or empty) and `group`. Images of one group stay in one split, for example all images of a patient.
A path is absolute, or relative to the manifest's folder, which it must not leave.
"""

import os
import posixpath
import re
from collections.abc import Iterable
from typing import Literal, NamedTuple
from urllib.parse import unquote

from cnnlib.config.sources import ManifestSource
from cnnlib.errors import ImageError, SourceError
from cnnlib.image_set.contract import LABEL, PATH

SPLIT = "split"
GROUP = "group"

Format = Literal["csv", "jsonl", "parquet"]
FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
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


class Columns(NamedTuple):
    """What a manifest's own columns are called; None for each that it does not have."""

    path: str
    label: str | None = None
    split: str | None = None
    group: str | None = None


def find_columns(names: Iterable[str], settings: ManifestSource) -> Columns:
    """Find the columns of a manifest; `names` are all that it has. Upper and lower case do not matter.

    Raises SourceError if it lacks one that it must have, or one that the settings name.

    >>> find_columns(["Path", "label", "width"], ManifestSource(path="a.csv"))
    Columns(path='Path', label='label', split=None, group=None)
    """
    found = list(names)

    def find(setting: str, name: str, *, needed: bool) -> str | None:
        if name in found:
            return name
        alike = [one for one in found if one.lower() == name.lower()]
        if len(alike) == 1:
            return alike[0]
        if needed:
            raise SourceError(
                f"source.path={settings.path} has no column {name}; it has {', '.join(map(repr, found)) or 'none'}. "
                f"Name the right one with --source.{setting}, or write these names into the first line: a manifest has "
                f"{PATH} and {LABEL}, and may have {SPLIT} and {GROUP}"
            )
        return None

    labelled = settings.labels == "given"
    path = find("path_column", settings.path_column, needed=True)
    assert path is not None  # it is needed
    return Columns(
        path,
        find("label_column", settings.label_column, needed=True) if labelled else None,
        find("split_column", settings.split_column or SPLIT, needed=settings.split_column is not None),
        find("group_column", settings.group_column or GROUP, needed=settings.group_column is not None),
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


def other_readings(path_in_manifest: str) -> list[str]:
    """Return how else a path may be meant whose file does not exist, the likeliest first.

    Blanks around it may come from the manifest. Of a URI with a scheme, Spark writes some characters as %20.

    >>> other_readings("file:/data/my%20cat.jpg"), other_readings("cat.jpg "), other_readings("a%20b.jpg")
    (['file:/data/my cat.jpg'], ['cat.jpg'], [])
    """
    stripped = path_in_manifest.strip()
    readings = [stripped]
    if _SCHEME.match(stripped):
        readings.append(unquote(stripped))
    return [reading for reading in dict.fromkeys(readings) if reading != path_in_manifest]


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
