"""Run by test_other_sessions.py in a process of its own: Spark Connect, on a server that it starts.

Prints one line of JSON.
"""

import json
import os
import signal
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import psutil

from cnnlib.config import FitSettings
from cnnlib.errors import HostError
from pipelines import launch as launch_module
from pipelines.cluster import runs_here, store_problem, workers_problem
from pipelines.ingest import ingest
from pipelines.launch import launch
from pipelines.session import spark_session
from pipelines.train_on_workers import _launched
from tests.conftest import write_photos
from tests.spark.ingests import settings_of
from tests.spark.probes import PROBE_FILE, Probes, all_gone


def main(folder: Path) -> dict[str, object]:
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    os.environ["SPARK_REMOTE"] = "local[4]"
    options = {
        "spark.ui.enabled": "false",
        # So that two tasks of two processors each are all that it can run.
        "spark.task.cpus": "2",
        "spark.scheduler.barrier.maxConcurrentTasksCheck.interval": "2s",
        "spark.scheduler.barrier.maxConcurrentTasksCheck.maxFailures": "4",
    }
    spark = spark_session("sparkcnn tests", **options)
    found: dict[str, object] = {
        "two": workers_problem(spark, FitSettings(workers=2)),
        "three": workers_problem(spark, FitSettings(workers=3)),
        "GPUs": workers_problem(spark, FitSettings(workers=2, gpus_per_worker=1)),
        "runs here": runs_here(spark),
        "store": store_problem(spark, f"sqlite:///{folder}/mlflow.db"),
    }
    photos = write_photos(folder / "photos", per_class=10)
    found["ingested"] = asdict(ingest(spark, settings_of("image_folder", photos, folder / "set")).counts)
    spark.addArtifacts(str(PROBE_FILE), pyfile=True)
    probes = Probes(folder)
    found["launched"] = [asdict(one) for one in launch(spark, probes.plan("end", "end"))]
    # Spark itself says so after 8 s here.
    for name, launch_module.SECONDS_TO_BEGIN in (("not begun", 3.0), ("too few slots", 60.0)):
        try:
            _launched(spark, probes.plan("end", "end", "end"))
        except HostError as error:
            found[name] = error.message

    for path in folder.glob("*.json"):
        path.unlink()
    ranks: list[psutil.Process] = []

    def interrupt() -> None:
        ranks.extend(probes.started(2))
        os.kill(os.getpid(), signal.SIGINT)

    # As for a server elsewhere: this one's, being in this process, would cancel its jobs by itself.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt).start()
    try:
        launch(spark, probes.plan("wait", "wait"))
    except KeyboardInterrupt:
        found["interrupted"] = len(ranks)
    found["ranks are gone"] = all_gone(ranks)
    spark.stop()
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
