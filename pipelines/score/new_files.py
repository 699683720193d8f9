"""What has come into a folder since the last run, each file exactly once: Spark's file stream, and its checkpoint.

The checkpoint names the files of a batch before the batch is begun, and the batch as done after it. A run that dies
between gives the same batch again, under the same mark: whoever takes it compares marks.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming import StreamingQuery

from cnnlib.errors import HostError, SourceError, first_line
from cnnlib.sources.image_folder import SUFFIXES
from cnnlib.storage.folder import Folder, is_local, open_folder
from pipelines.spark.read_parts import literal_path
from pipelines.spark.session import is_classic

# What Spark's binaryFile has; a stream does not ask the format for it.
_FILES = "path string, modificationTime timestamp, length long, content binary"

# Names of images as Hadoop's patterns have them, in upper and lower case: *{.[jJ][pP][gG],...}
_ENDINGS = (re.sub("[a-z]", lambda letter: f"[{letter[0]}{letter[0].upper()}]", suffix) for suffix in SUFFIXES)
_IMAGES = f"*{{{','.join(_ENDINGS)}}}"


@dataclass(frozen=True)
class Mark:
    """A batch: the id that the checkpoint gave its stream, and the number of the batch in it, from 0."""

    stream: str
    batch: int


def take_new_files(
    spark: SparkSession, folder: Folder, checkpoint: str, take: Callable[[Mapping[str, int], Mark], None]
) -> None:
    """Have `take` called with new images below a folder until there are no more: bytes by name, relative to it.

    Spark sees no file whose name, or that of a folder above it, begins with a dot or an underscore. `checkpoint` is a
    folder of Spark's, made by the first run.

    Raises what `take` raises, and the next run gives that batch again; HostError under Spark Connect, whose server
    cannot call back; SourceError where Spark cannot list the folder.
    """
    if not is_classic(spark):
        raise HostError("score.mode=stream needs a Spark session of its own; over Spark Connect, take incremental")
    raised: list[BaseException] = []

    def on_batch(files: DataFrame, number: int) -> None:
        images = {_name(folder, row["path"]): row["length"] for row in files.orderBy("path").collect()}
        try:
            take(images, Mark(_stream_id(checkpoint), number))
        except BaseException as error:
            raised.append(error)
            raise

    stream = spark.readStream.format("binaryFile").schema(_FILES)
    stream = stream.option("recursiveFileLookup", "true").option("pathGlobFilter", _IMAGES)
    # By default a file that is a week older than the newest one seen would be left out without a word.
    stream = stream.option("maxFileAge", "36500d")
    try:
        # Of the columns that are not selected Spark reads nothing: not the content.
        files = stream.load(literal_path(folder.uri)).select("path", "length")
        query = files.writeStream.foreachBatch(on_batch).option("checkpointLocation", checkpoint)
        _run_to_its_end(query.trigger(availableNow=True).start())
    except PySparkException as error:
        if raised:
            raise raised[0] from error
        raise SourceError(f"input.path={folder.uri} cannot be read as a stream: {first_line(error)}") from error


def _run_to_its_end(query: StreamingQuery) -> None:
    try:
        query.awaitTermination()
    except BaseException:
        with suppress(PySparkException):
            query.stop()
        raise


def _name(folder: Folder, path: str) -> str:
    """A file's name relative to a folder; Spark writes file:/a/b for /a/b."""
    root = folder.root if is_local(folder) else folder.uri
    return path[path.index(root) + len(root) :].lstrip("/")


def stream_with_batches(checkpoint: str) -> str | None:
    """The id of the stream that has taken files with this checkpoint already; None where none has."""
    taken = any(name.startswith("commits/") for name in open_folder(checkpoint).files())
    return _stream_id(checkpoint) if taken else None


def _stream_id(checkpoint: str) -> str:
    metadata = open_folder(checkpoint).read_json("metadata")
    assert metadata is not None  # Spark writes it before the first batch
    return metadata["id"]
