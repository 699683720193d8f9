"""Ingests whose Python workers and executors are killed. test_killed_workers.py runs this in another process.

Prints one line of JSON.
"""

import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from cnnlib.image_set.contract import open_image_set
from pipelines.ingest.flow import ingest
from pipelines.spark.session import spark_session
from tests.conftest import write_photos
from tests.spark.ingests import is_whole, settings_of

KILLS = 10
# The processes to kill, by a part of their command lines.
PYTHON_WORKERS = "pyspark.daemon"
EXECUTORS = "CoarseGrainedExecutorBackend"


def kill(what: str, after: float, hit: threading.Event) -> None:
    time.sleep(after)
    for process in psutil.Process().children(recursive=True):
        try:
            if what in " ".join(process.cmdline()):
                process.kill()
                hit.set()
                if what == EXECUTORS:
                    return
        except psutil.Error:
            pass  # It ended by itself in the meantime.


def ends_under_kills(run: Callable[[int], object], kills: int, seconds: float, seed: int) -> Iterator[tuple[str, bool]]:
    """Call `run` `kills` times. During each run, kill Python workers or an executor within `seconds`.

    Yields how each run ended, and whether there was a process to kill.
    """
    chance = random.Random(seed)
    for number in range(kills):
        what = EXECUTORS if number % 3 == 2 else PYTHON_WORKERS
        hit = threading.Event()
        killer = threading.Thread(target=kill, args=(what, chance.uniform(0, seconds), hit))
        killer.start()
        try:
            run(number)
            ended = "well"
        except Exception as error:
            print(f"{what}: {type(error).__name__}", file=sys.stderr)
            ended = "with an error"
        killer.join()
        yield ended, hit.is_set()


def main(folder: Path) -> dict[str, object]:
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    spark = spark_session(**{"spark.master": "local-cluster[2,1,1024]", "spark.ui.enabled": "false"})
    sources = [
        settings_of(
            "image_folder",
            write_photos(folder / name, per_class=per_class),
            folder / "set",
            output={"overwrite": True},
            image={"height": 200},
        )
        for name, per_class in (("fewer", 100), ("more", 150))
    ]
    fingerprints = [ingest(spark, settings).fingerprint for settings in sources]
    begin = time.monotonic()
    ingest(spark, sources[0])
    seconds = time.monotonic() - begin
    ends, hits, whole = [], 0, []
    for end, hit in ends_under_kills(lambda number: ingest(spark, sources[(number + 1) % 2]), KILLS, seconds, seed=0):
        ends.append(end)
        hits += hit
        image_set = open_image_set(str(folder / "set"))
        whole.append(image_set.fingerprint in fingerprints and is_whole(image_set))
    last = ingest(spark, sources[1])
    named = {file.path for split in last.splits.values() for file in split.files}
    named |= {file.path for file in (*last.rejects, *last.ledger, *last.source_files)}
    left = {path.relative_to(folder / "set").as_posix() for path in (folder / "set").rglob("*.parquet")}
    spark.stop()
    return {
        "ends": ends,
        "hits": hits,
        "whole": whole,
        "last is right": last.fingerprint == fingerprints[1],
        "left behind": sorted(left - named),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
