"""Python workers that are killed in an ingest: it fails or it succeeds, but a set is never a mixture."""

import random
import threading
import time
from pathlib import Path

import psutil
from pyspark.sql import SparkSession

from cnnlib.imageset import open_image_set
from pipelines.ingest import ingest
from tests.conftest import write_photos
from tests.spark.ingests import is_whole, settings_of

KILLS = 12


def kill_workers(after: float) -> None:
    time.sleep(after)
    for process in psutil.Process().children(recursive=True):
        if process.status() != psutil.STATUS_ZOMBIE and "pyspark.daemon" in " ".join(process.cmdline()):
            process.kill()


def test_killed_workers_leave_a_whole_set_each_time(spark: SparkSession, tmp_path: Path) -> None:
    fewer = write_photos(tmp_path / "fewer", per_class=100)
    more = write_photos(tmp_path / "more", per_class=150)
    sources = [
        settings_of("image_folder", source, tmp_path / "set", output={"overwrite": True}, image={"height": 200})
        for source in (fewer, more)
    ]
    fingerprints = [ingest(spark, settings).fingerprint for settings in sources]
    begin = time.monotonic()
    ingest(spark, sources[0])
    seconds = time.monotonic() - begin
    chance = random.Random(0)
    failed = 0
    for number in range(KILLS):
        killer = threading.Thread(target=kill_workers, args=(chance.uniform(0, seconds),))
        killer.start()
        try:
            ingest(spark, sources[(number + 1) % 2])
        except Exception:
            failed += 1  # Spark on one machine tries a task but once
        killer.join()
        image_set = open_image_set(str(tmp_path / "set"))
        assert image_set.fingerprint in fingerprints
        assert is_whole(image_set)
    assert failed > KILLS / 3
    assert ingest(spark, sources[1]).fingerprint == fingerprints[1]
    named = {path.parent.name for path in (tmp_path / "set").rglob("*.parquet")}
    assert named <= {"train", "val", "test", "ledger", "files"}
