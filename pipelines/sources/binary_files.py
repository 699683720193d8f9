"""Files at any URI that Spark's file systems know: their listing, and their bytes by Spark's binaryFile source."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
from pyspark.sql import Column, DataFrame, DataFrameReader, SparkSession
from pyspark.sql import functions as F

from cnnlib.imageset import SIZE_BYTES
from cnnlib.imageset_writer import CONTENT
from cnnlib.ledger import FILE
from cnnlib.storage import Folder, open_folder

# When a file was written last, or as what, by the names that fsspec's file systems have for it.
_WRITTEN = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")
# As Spark itself, list so many folders here, and more of them in tasks.
_FOLDERS_LISTED_HERE = 32
_LISTING_SCHEMA = "name string, size_bytes long, version string"
_ARROW_LISTING = pa.schema([("name", pa.string()), ("size_bytes", pa.int64()), ("version", pa.string())])
_BATCH_ROWS = 10_000
_LOCAL_SCHEME = re.compile("^(file|dbfs):/+")
_TO_THE_END = 2**31 - 1


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

    def list_share(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        opened = open_folder(uri)
        for batch in batches:
            files = [file for name in batch.column("name").to_pylist() for file in _list_subfolder(opened, name)]
            for start in range(0, len(files), _BATCH_ROWS):
                rows = [file._asdict() for file in files[start : start + _BATCH_ROWS]]
                yield pa.RecordBatch.from_pylist(rows, schema=_ARROW_LISTING)

    names = spark.createDataFrame([(name,) for name in subfolders], "name string").repartition(len(subfolders) // 8)
    return sorted([*found, *map(ListedFile._make, names.mapInArrow(list_share, _LISTING_SCHEMA).collect())])


def written(info: Mapping[str, Any]) -> str:
    """What a file system says of when, or as what, a file was written last; "" where it does not say."""
    return next((str(info[name]) for name in _WRITTEN if info.get(name)), "")


def version_of(info: Mapping[str, Any]) -> str:
    """What changes when a file is written anew."""
    return f"{info['size']}-{written(info)}"


def read_folder(spark: SparkSession, folder: Folder, names: Sequence[str] | None, glob: str | None = None) -> DataFrame:
    """The bytes of files, by Spark: FILE (relative to the folder), SIZE_BYTES and CONTENT.

    `names` are relative to the folder; None is all below it that match `glob`. A file that is gone or cannot be read
    when its turn comes has no row, and does no harm to the others.
    """
    if names is None:
        reader = _reader(spark).option("recursiveFileLookup", "true")
        files = (reader.option("pathGlobFilter", glob) if glob else reader).load(literal_path(folder.uri))
    elif names:
        files = _reader(spark).load([literal_path(f"{folder.uri}/{name}") for name in names])
    else:
        return spark.createDataFrame([], f"{FILE} string, {SIZE_BYTES} long, {CONTENT} binary")
    return files.select(
        relative_to(folder, F.col("path")).alias(FILE),
        F.col("length").alias(SIZE_BYTES),
        F.col("content").alias(CONTENT),
    )


def read_uris(spark: SparkSession, uris: Sequence[str]) -> DataFrame:
    """The bytes of files anywhere, as `read_folder`: `uri` (as `plain_uri` has it), SIZE_BYTES and CONTENT."""
    if not uris:
        return spark.createDataFrame([], f"uri string, {SIZE_BYTES} long, {CONTENT} binary")
    return (
        _reader(spark)
        .load([literal_path(uri) for uri in uris])
        .select(
            F.regexp_replace("path", _LOCAL_SCHEME.pattern, "/").alias("uri"),
            F.col("length").alias(SIZE_BYTES),
            F.col("content").alias(CONTENT),
        )
    )


def plain_uri(uri: str) -> str:
    """A URI without the scheme of files, which Spark and fsspec write in several ways.

    >>> plain_uri("file:///data/a.jpg"), plain_uri("file:/data/a.jpg"), plain_uri("s3a://bucket/a.jpg")
    ('/data/a.jpg', '/data/a.jpg', 's3a://bucket/a.jpg')
    """
    return _LOCAL_SCHEME.sub("/", uri)


def _reader(spark: SparkSession) -> DataFrameReader:
    return spark.read.format("binaryFile").option("ignoreMissingFiles", "true").option("ignoreCorruptFiles", "true")


def relative_to(folder: Folder, path: Column) -> Column:
    """A path as Spark has it -> relative to a folder.

    Spark may put a host into the URI, so the path in it is sought.
    """
    root = f"{folder.root}/"
    return path.substr(F.locate(root, path) + F.lit(len(root)), F.lit(_TO_THE_END))


def literal_path(path: str) -> str:
    """Escape what Hadoop would take for a pattern: a folder may well be called photos[1]."""
    return re.sub(r"([\\{}\[\]*?])", r"\\\1", path)


def _list_subfolder(folder: Folder, name: str) -> list[ListedFile]:
    found = folder.fs.find(folder.path(name), withdirs=False, detail=True)
    return [_listed_file(folder, path, info) for path, info in found.items()]


def _listed_file(folder: Folder, path: str, info: Mapping[str, Any]) -> ListedFile:
    # A name that is no UTF-8, which neither Java nor Arrow can spell, is shown with what it has in its place.
    name = path[len(folder.root) + 1 :].encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return ListedFile(name, info["size"], version_of(info))
