"""Executors in their own JVMs, with GPUs that do not exist. test_other_sessions.py runs this in another process.

Prints one line of JSON.
"""

import json
import os
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import psutil

from cnnlib.config import FitSettings
from pipelines.spark import cluster
from pipelines.spark.cluster import slots_within, workers_problem
from pipelines.spark.session import spark_session
from pipelines.train.workers.launch import launch
from pipelines.train.workers.train_on_workers import launch_once
from tests.spark.probes import PROBE_FILE, TIMEOUT_S, Probes, all_gone

DISCOVERY = """#!/bin/sh
echo '{"name": "gpu", "addresses": ["0", "1"]}'
"""


def main(folder: Path) -> dict[str, object]:
    discovery = folder / "discovery.sh"
    discovery.write_text(DISCOVERY)
    discovery.chmod(0o755)
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    spark = spark_session(
        **{
            "spark.master": "local-cluster[2,2,2048]",
            "spark.ui.enabled": "false",
            "spark.worker.resource.gpu.amount": "2",
            "spark.worker.resource.gpu.discoveryScript": str(discovery),
            "spark.executor.memory": "1g",
            "spark.executor.resource.gpu.amount": "2",
            "spark.task.resource.gpu.amount": "1",
        }
    )
    found: dict[str, object] = {
        # This asks before any executor has started.
        "early": workers_problem(spark, FitSettings(workers=4, gpus_per_worker=1)),
    }
    cluster.EXECUTORS_COME_WITHIN_S = 0.0
    found["too many"] = workers_problem(spark, FitSettings(workers=5, gpus_per_worker=1))
    spark.sparkContext.addPyFile(str(PROBE_FILE))
    probes = Probes(folder)

    found["with GPUs"] = [asdict(one) for one in launch(spark, probes.plan(*["end"] * 4, gpus_per_worker=1))]
    found["without"] = [asdict(one) for one in launch(spark, probes.plan("end", "end"))]
    # The code of a real rank notices that this GPU does not exist.
    real = probes.plan("", module="pipelines.train.workers.rank", gpus_per_worker=1)
    found["real"] = [asdict(one) for one in launch(spark, real)]

    ranks: list[psutil.Process] = []
    for path in folder.glob("*.json"):
        path.unlink()

    def kill_an_executor() -> None:
        ranks.extend(probes.started(4))
        # The ancestors of a rank are its Python worker, the worker's daemon, and the executor.
        ranks[0].parents()[2].kill()

    killer = threading.Thread(target=kill_an_executor)
    killer.start()
    found["executor lost"] = [asdict(one) for one in launch_once(spark, probes.plan(*["wait"] * 4))]
    killer.join()
    found["ranks are gone"] = all_gone(ranks)
    found["slots again"] = slots_within(TIMEOUT_S, spark, 4)
    found["again"] = [asdict(one) for one in launch(spark, probes.plan(*["end"] * 4))]
    spark.stop()
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
