"""Studies on executors in their own JVMs. test_tune.py runs this in another process.

In the first study, one executor is killed. In the second study, the executors have GPUs that do not exist. Prints one
line of JSON.
"""

import json
import os
import sys
import threading
from pathlib import Path

import mlflow
import psutil
from pyspark.sql import SparkSession

from cnnlib.config import TuneSettings
from cnnlib.errors import TrainingError
from cnnlib.image_set.contract import ImageSet
from pipelines.spark.session import spark_session
from pipelines.tune.flow import tune
from tests.spark.probes import eventually
from tests.unit.trainings import striped_set

DISCOVERY = """#!/bin/sh
echo '{"name": "gpu", "addresses": ["5"]}'
"""
GPUS = {
    "spark.worker.resource.gpu.amount": "1",
    "spark.executor.resource.gpu.amount": "1",
    "spark.task.resource.gpu.amount": "1",
}


EPOCHS = 3
GATED = Path(__file__).with_name("gated_model.py")


def session(**settings: str) -> SparkSession:
    """Start a session with two executors of one core each."""
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    cluster = {"spark.master": "local-cluster[2,1,1024]", "spark.ui.enabled": "false"}
    return spark_session(**cluster, **settings)


def settings_of(image_set: ImageSet, folder: Path, trials: int, epochs: int, **model: object) -> TuneSettings:
    return TuneSettings(
        data={"path": image_set.folder.uri},
        model=model,
        train={"epochs": epochs, "worker_batch_size": 32, "patience": 0},
        tracking={"uri": f"sqlite:///{folder}/mlflow.db"},
        tune={"space": {"optimizer.learning_rate": "loguniform(1e-4,1e-2)"}, "trials": trials, "parallel": 2},
        output={"path": str(folder / "out")},
    )


def kill_the_executor_of_a_trial(folder: Path) -> None:
    """Kill one of two executors and its Python worker during its trial. Then open the gate for the other trials."""
    try:
        eventually(lambda: len(list(folder.glob("waits *"))) == 2)
        worker = psutil.Process(int(next(folder.glob("waits *")).name.removeprefix("waits ")))
        executor = next(one for one in worker.parents() if "CoarseGrainedExecutorBackend" in " ".join(one.cmdline()))
        # Without its executor, the Python worker would train on for a while, and might finish the trial.
        lost = [executor, *executor.children(recursive=True)]
        for process in lost:
            process.kill()
        psutil.wait_procs(lost)
    finally:
        # Open the gate even after an error, so that the test fails instead of waiting.
        (folder / "open").touch()


def main(folder: Path) -> dict[str, object]:
    image_set = striped_set(folder / "set")
    gated = {"name": f"{GATED.stem}:model", "options": {"folder": str(folder)}}
    lost = settings_of(image_set, folder, trials=3, epochs=EPOCHS, **gated)
    client = mlflow.MlflowClient(lost.tracking.uri)
    client.search_experiments()  # Create the store here, before several processes could try that.
    spark = session()
    spark.sparkContext.addPyFile(str(GATED))
    killer = threading.Thread(target=kill_the_executor_of_a_trial, args=[folder])
    killer.start()
    result = tune(spark, lost)
    killer.join()
    spark.stop()
    runs = client.search_runs([client.get_run(result.run_id).info.experiment_id])

    discovery = folder / "discovery.sh"
    discovery.write_text(DISCOVERY)
    discovery.chmod(0o755)
    spark = session(**GPUS, **{"spark.worker.resource.gpu.discoveryScript": str(discovery)})
    try:
        tune(spark, settings_of(image_set, folder, trials=1, epochs=1, name="mlp"))
        refused = ""
    except TrainingError as error:
        refused = error.message
    spark.stop()
    return {
        "trials": [[trial.run_id, trial.state, trial.epochs] for trial in result.trials],
        "statuses": {run.info.run_id: run.info.status for run in runs},
        "study": result.run_id,
        "refused": refused,
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
