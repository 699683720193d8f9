"""What benchmarks/ingest.py measures, each in a process of its own: `python -m benchmarks.ingest_ways WAY OPTIONS`.

OPTIONS are a JSON object; the last line printed is another. `seconds` leave out what starts before the first image:
the interpreter and its imports, the JVM and the session, Ray's server. Files of the source are in the page cache for
everybody, and every way writes pixels and label of 96 x 96 images to Parquet.
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
# As ingest writes them by default: 2 MB of raw pixels.
ROWS_PER_ROW_GROUP = 2_000_000 // (SIZE * SIZE * 3)


def decode_as_ingest(content: bytes) -> np.ndarray:
    """Decode with this project's decoder, which also takes what is no JPEG, and refuses what is no image."""
    return decode_image(content, ImageSpec(SIZE, SIZE, 3))


DECODERS = {"pillow": draft_and_resize, "own": decode_as_ingest}


# --- the ceiling


def ceiling(source: str, output: str, images: int, processes: int, decoder: str) -> dict[str, float]:
    """A loop over files and nothing else, in processes that know nothing of each other."""
    paths = photographs_in(Path(source))[:images]
    Path(output).mkdir()
    context = get_context("spawn")
    with context.Pool(processes, initializer=_meet_at, initargs=(context.Barrier(processes),)) as pool:
        shares = [(paths[first::processes], f"{output}/{first}.parquet", decoder) for first in range(processes)]
        spans = pool.starmap(write_share, shares, chunksize=1)
    starts, ends = zip(*spans, strict=True)
    return {"images": rows_in(output), "seconds": max(ends) - min(starts)}


def _meet_at(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def write_share(paths: Sequence[Path], output: str, decoder: str) -> tuple[float, float]:
    """Decode files and write them to one Parquet file, once every process has got as far. Gives start and end."""
    decode = DECODERS[decoder]
    decode(paths[0].read_bytes())  # Pillow loads its readers at the first image
    _barrier.wait()
    start, left = time.monotonic(), iter(paths)
    # The same settings as ingest's.
    options = {"use_dictionary": False, "compression": "snappy", "write_statistics": False}
    with pq.ParquetWriter(output, SCHEMA, **options) as writer:
        while group := list(islice(left, ROWS_PER_ROW_GROUP)):
            columns = [
                [path.name for path in group],
                [decode(path.read_bytes()).tobytes() for path in group],
                [LABELS[path.parent.name] for path in group],
            ]
            writer.write_batch(pa.record_batch(columns, schema=SCHEMA))
    return start, time.monotonic()


# --- this project, and petastorm on the same kind of session


def ingest(source: str, output: str) -> dict[str, float]:
    """This project's ingest, in a session that has just been started: its Python workers are not there yet."""
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
    """petastorm's own way, with the Arrow bridge."""
    from benchmarks.ingest_petastorm import materialize
    from pipelines.spark.session import spark_session

    spark = spark_session("sparkcnn benchmark")
    start = time.perf_counter()
    materialize(spark, source, output)
    seconds = time.perf_counter() - start
    spark.stop()
    return {"images": rows_in(output), "seconds": seconds}


def rows_in(folder: str) -> int:
    """Rows of all Parquet files of a folder."""
    return sum(pq.read_metadata(path).num_rows for path in Path(folder).rglob("*.parquet"))


WAYS: dict[str, Callable[..., dict[str, float]]] = {"ceiling": ceiling, "ingest": ingest, "petastorm": petastorm}

if __name__ == "__main__":
    way, options = sys.argv[1:]
    print(json.dumps(WAYS[way](**json.loads(options))))
