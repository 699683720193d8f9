"""The ways of ingesting that benchmarks/ingest.py measures: `python -m benchmarks.ingest_ways WAY OPTIONS`.

Each way runs in its own process. OPTIONS is a JSON object, and the last printed line is one too. Its `seconds` leave
out everything that starts before the first image: the interpreter and its imports, the JVM, the session, and Ray's
server. The source files are in the page cache for every way. Every way writes the pixels and label of 96 x 96 images
to Parquet.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.photographs import LABELS, SIZE, draft_and_resize, photographs_in
from cnnlib.sealed.frozen.images import ImageSpec, decode_image

SCHEMA = pa.schema([("path", pa.string()), ("image", pa.binary()), ("label", pa.int32())])
# The default of ingest: 2 MB of raw pixels.
ROWS_PER_ROW_GROUP = 2_000_000 // (SIZE * SIZE * 3)


def decode_as_ingest(content: bytes) -> np.ndarray:
    """Decode with this project's decoder: (96, 96, 3) uint8.

    It also decodes formats other than JPEG, and refuses a file that is not an image.
    """
    return decode_image(content, ImageSpec(SIZE, SIZE, 3))


DECODERS = {"pillow": draft_and_resize, "own": decode_as_ingest}


# --- the ceiling


def ceiling(source: str, output: str, images: int, processes: int, decoder: str) -> dict[str, float]:
    """Decode and write the files in a plain loop, in processes that do not communicate while they run."""
    paths = photographs_in(Path(source))[:images]
    Path(output).mkdir()
    context = get_context("spawn")
    with context.Pool(processes, initializer=_set_barrier, initargs=(context.Barrier(processes),)) as pool:
        jobs = [(paths[first::processes], f"{output}/{first}.parquet", decoder) for first in range(processes)]
        spans = pool.starmap(write_images, jobs, chunksize=1)
    starts, ends = zip(*spans, strict=True)
    return {"images": rows_in(output), "seconds": max(ends) - min(starts)}


def _set_barrier(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def write_images(paths: Sequence[Path], output: str, decoder: str) -> tuple[float, float]:
    """Wait for the other processes, then decode files into one Parquet file. Return the start and end times."""
    decode = DECODERS[decoder]
    decode(paths[0].read_bytes())  # at the first image, Pillow loads its readers
    _barrier.wait()
    start, remaining = time.monotonic(), iter(paths)
    # Ingest writes with the same settings.
    options = {"use_dictionary": False, "compression": "snappy", "write_statistics": False}
    with pq.ParquetWriter(output, SCHEMA, **options) as writer:
        while group := list(islice(remaining, ROWS_PER_ROW_GROUP)):
            columns = [
                [path.name for path in group],
                [decode(path.read_bytes()).tobytes() for path in group],
                [LABELS[path.parent.name] for path in group],
            ]
            writer.write_batch(pa.record_batch(columns, schema=SCHEMA))
    return start, time.monotonic()


# --- this project, and petastorm in the same kind of session


def ingest(source: str, output: str) -> dict[str, float]:
    """Run this project's ingest in a session that has just started, so it has no Python workers yet."""
    from cnnlib.config import IngestSettings
    from pipelines.ingest.flow import ingest
    from pipelines.spark.session import spark_session

    settings = IngestSettings(
        source={"format": "image_folder", "path": source},
        image={"height": SIZE, "width": SIZE},
        output={"path": output},
    )
    spark = spark_session("sparkcnn benchmark")
    start = time.perf_counter()
    image_set = ingest(spark, settings)
    seconds = time.perf_counter() - start
    spark.stop()
    return {"images": image_set.counts.kept, "seconds": seconds}


def petastorm(source: str, output: str) -> dict[str, float]:
    """Write the images in petastorm's own way, with the Arrow bridge."""
    from benchmarks.ingest_petastorm import materialize
    from pipelines.spark.session import spark_session

    spark = spark_session("sparkcnn benchmark")
    start = time.perf_counter()
    materialize(spark, source, output)
    seconds = time.perf_counter() - start
    spark.stop()
    return {"images": rows_in(output), "seconds": seconds}


def rows_in(folder: str) -> int:
    """Return the number of rows in all Parquet files of a folder."""
    return sum(pq.read_metadata(path).num_rows for path in Path(folder).rglob("*.parquet"))


WAYS: dict[str, Callable[..., dict[str, float]]] = {"ceiling": ceiling, "ingest": ingest, "petastorm": petastorm}

if __name__ == "__main__":
    way, options = sys.argv[1:]
    print(json.dumps(WAYS[way](**json.loads(options))))
