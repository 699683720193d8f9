"""Ingest the same files with Ray Data: `python -m benchmarks.ingest_ray OPTIONS`.

PYTHONPATH must name Ray's folder, and the loopback must be the only network interface; `benchmarks/ingest.py` sees to
both. OPTIONS is a JSON object with source, output, size, and temporary: a folder with a short path. The last printed
line is a JSON object too.

The code follows Ray's guide "Working with Images": `read_images` with the size, `map_batches`, `write_parquet`, and
defaults for everything else. Labels come from the paths, because `Partitioning` of Ray 2.60 sometimes fails if aiohttp
is missing: two threads then import the module that needs it at the same time.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.ray_data import start_ray


def main(source: str, output: str, temporary: str, size: int) -> dict[str, float]:
    """Start Ray for this process only, ingest, and stop Ray. Raises OSError if other machines could reach it."""
    ray = start_ray(temporary)
    try:
        classes = sorted(folder.name for folder in Path(source).iterdir())
        start = time.perf_counter()
        images = ray.data.read_images(source, size=(size, size), mode="RGB", include_paths=True)
        images.map_batches(with_label, fn_kwargs={"classes": classes}).write_parquet(output)
        seconds = time.perf_counter() - start
    finally:
        ray.shutdown()
    images_out = sum(pq.read_metadata(path).num_rows for path in Path(output).glob("*.parquet"))
    return {"images": images_out, "seconds": seconds}


def with_label(batch: dict[str, np.ndarray], classes: list[str]) -> dict[str, np.ndarray]:
    """Add the label: the number of the class. The name of the file's folder is the class."""
    names = [path.split("/")[-2] for path in batch["path"]]
    return batch | {"label": np.searchsorted(classes, names).astype(np.int32)}


if __name__ == "__main__":
    print(json.dumps(main(**json.loads(sys.argv[1]))))
