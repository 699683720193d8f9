"""Ingest the same files with Ray Data: `python -m benchmarks.ingest_ray OPTIONS`.

Ray must be on PYTHONPATH. OPTIONS is a JSON object with source, output, size, and temporary: a folder with a
short path, because Ray makes sockets in it. The last printed line is a JSON object too.

The code follows Ray's guide "Working with Images": `read_images` with the size, `map_batches`, `write_parquet`, and
defaults for everything else. Labels come from the paths, because `Partitioning` of Ray 2.60 sometimes fails if aiohttp
is missing: two threads then import the module that needs it at the same time.

Ray listens on every network interface, whatever address it gets: Ray 2.60 replaces 127.0.0.1 with the address of the
machine. So run this only where the loopback is the only interface, as `benchmarks/ingest.py` does.
"""

import json
import os
import socket
import sys
import time
from pathlib import Path

# Ray reads these when it is imported.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"

import numpy as np
import pyarrow.parquet as pq
import ray


def main(source: str, output: str, temporary: str, size: int) -> dict[str, float]:
    """Start Ray for this process only, ingest, and stop Ray. Raises OSError if other machines could reach it."""
    reachable = [name for _, name in socket.if_nameindex() if name != "lo"]
    if reachable:
        raise OSError(f"Ray would listen on {', '.join(reachable)}; run this where there is no interface but lo")
    ray.init(
        address="local",
        num_cpus=os.cpu_count(),
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        _temp_dir=temporary,
    )
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
