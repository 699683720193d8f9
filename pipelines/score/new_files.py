"""The files that were added to a folder since the last job, each exactly once: Spark's file stream and its checkpoint.

The checkpoint names the files of a batch before the batch starts, and records that it is done after it. If a job dies
in between, the next job gets the same batch again, with the same `StreamBatch`, and can see whether it was published.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming import StreamingQuery

from cnnlib.errors import HostError, SourceError, first_line
from cnnlib.storage.folder import Folder, open_folder
from pipelines.spark.read_parts import literal_path
from pipelines.spark.session import is_classic

# The columns of Spark's binaryFile format. A stream needs them named.
_FILE_COLUMNS = "path string, modificationTime timestamp, length long, content binary"


@dataclass(frozen=True)
class StreamBatch:
    """A batch of new files: the id that the checkpoint gave its stream, and the batch's number in it, from 0."""

    stream: str
    number: int


def for_each_batch_of_new_files(
    spark: SparkSession,
    folder: Folder,
    checkpoint: str,
    process: Callable[[Mapping[str, int], StreamBatch], None],
) -> None:
    """Call `process` with the bytes of each new file, by name relative to the folder, until no new file is left.

    Spark skips files if their name, or the name of a folder above them, begins with a dot or an underscore.
    `checkpoint` is a folder for Spark, which the first job creates.

    Raises what `process` raises; the next job then gets that batch again. Raises SourceError if Spark cannot list the
    folder, and HostError under Spark Connect, because its server cannot call `process`.
    """
    if not is_classic(spark):
        raise HostError(
            "score.mode=stream needs a classic Spark session, but this one is of Spark Connect; use incremental"
        )
    raised: list[BaseException] = []

    def on_batch(files: DataFrame, number: int) -> None:
        try:
            sizes = {_relative_name(folder, row["path"]): row["length"] for row in files.orderBy("path").collect()}
            process(sizes, StreamBatch(_stream_id(checkpoint), number))
        except BaseException as error:
            raised.append(error)
            raise

    stream = spark.readStream.format("binaryFile").schema(_FILE_COLUMNS)
    stream = stream.option("recursiveFileLookup", "true")
    # By default Spark silently skips files that are a week older than the newest one that it has seen.
    stream = stream.option("maxFileAge", "36500d")
    try:
        # Spark reads only the selected columns, so it does not read the content here.
        files = stream.load(literal_path(folder.uri)).select("path", "length")
        query = files.writeStream.foreachBatch(on_batch).option("checkpointLocation", checkpoint)
        _wait_for(query.trigger(availableNow=True).start())
    except PySparkException as error:
        if raised:
            raise raised[0] from error
        raise SourceError(f"input.path={folder.uri} cannot be read as a stream: {first_line(error)}") from error


def _wait_for(query: StreamingQuery) -> None:
    """Wait until a query ends; stop it if this thread is interrupted."""
    try:
        query.awaitTermination()
    except BaseException:
        with suppress(PySparkException):
            query.stop()
        raise


def _relative_name(folder: Folder, path: str) -> str:
    """Return the name of a file relative to a folder, of which Spark gives the path.

    Spark writes file:/a/b for /a/b, dbfs:/Volumes/a for /Volumes/a, and dbfs:/a for a folder that is mounted elsewhere.

    >>> _relative_name(open_folder("/data/new"), "file:/data/new/cat/1.jpg")
    'cat/1.jpg'
    """
    for root in (folder.uri, folder.root):
        _, found, name = path.partition(f"{root.rstrip('/')}/")
        if found:
            return name.lstrip("/")
    raise SourceError(f"Spark lists {path}, which is not in input.path={folder.uri}; report this fault")


def stream_with_batches(checkpoint: str) -> str | None:
    """Return the id of the stream of a checkpoint, or None if it has finished no batch yet."""
    finished = any(name.startswith("commits/") for name in open_folder(checkpoint).files())
    return _stream_id(checkpoint) if finished else None


def _stream_id(checkpoint: str) -> str:
    metadata = open_folder(checkpoint).read_json("metadata")
    assert metadata is not None  # Spark writes it before the first batch
    return metadata["id"]
