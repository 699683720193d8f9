"""Folders whose Parquet files are not the table: table formats keep a log of the rows that count.

Delta Lake, Iceberg and Hudi leave files in place whose rows were deleted or rewritten. Who reads all files of such a
folder gets deleted rows back, and others twice.
"""

from cnnlib.storage.folder import Folder, open_folder

# Spark's name of the format, and the folder or files of its log. Spark itself obeys the log of its streams.
LOGS = {"delta": "_delta_log", "hudi": ".hoodie"}
_ICEBERG = "metadata"
# A path may be that of a partition, or of a file, below the table: country=DE/day=2024-05-01/part-0.parquet.
_LEVELS = 6


def table_log_above(path: str) -> tuple[str, str] | None:
    """Return (format, URI of the table) if a path is, or is in, a table of Delta, Iceberg or Hudi; else None.

    >>> table = open_folder("memory://lake/photos")
    >>> table.fs.pipe_file(table.path("_delta_log/00000000000000000000.json"), b"{}")
    >>> table_log_above("memory://lake/photos/day=1"), table_log_above("memory://lake/other")
    (('delta', 'memory://lake/photos'), None)
    """
    folder = open_folder(path)
    for _ in range(_LEVELS):
        found = _log_in(folder)
        if found is not None:
            return found, folder.uri
        parent, slash, _ = folder.uri.rpartition("/")
        if not slash or not parent or parent.endswith((":", "/")):
            return None
        folder = open_folder(parent)
    return None


def _log_in(folder: Folder) -> str | None:
    try:
        return _find_log(folder)
    except OSError:
        # Not everybody may list the folders above a table.
        return None


def _find_log(folder: Folder) -> str | None:
    for name, log in LOGS.items():
        if folder.fs.isdir(folder.path(log)):
            return name
    metadata = folder.path(_ICEBERG)
    if folder.fs.isdir(metadata):
        names = (info.rsplit("/", 1)[-1] for info in folder.fs.ls(metadata, detail=False))
        if any(name.endswith(".metadata.json") or name == "version-hint.text" for name in names):
            return "iceberg"
    return None
