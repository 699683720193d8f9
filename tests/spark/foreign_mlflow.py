"""Train in a process whose MLflow is set up otherwise, see test_foreign_mlflow.py.

Autologging changes Keras for the rest of a process, so this has a process of its own.
"""

import json
import logging
import os
import sys
from pathlib import Path

import numpy as np

from cnnlib.config import DataSettings, FitSettings, RegisterSettings, TrackingSettings, TrainSettings
from cnnlib.quiet import import_tensorflow_quietly
from pipelines.spark import spark_session
from tests.unit.image_sets import write_image_set


def main(folder: Path) -> None:
    import_tensorflow_quietly()
    import mlflow
    from mlflow.utils.autologging_utils import autologging_is_disabled

    from pipelines.train import train

    said: list[str] = []
    logging.getLogger("sparkcnn").addHandler(_Collector(said))
    images = np.random.default_rng(0).integers(0, 256, (120, 16, 16, 1), dtype=np.uint8)
    write_image_set(folder / "set", images, [0, 1] * 60, ["train"] * 80 + ["val"] * 40, classes=("a", "b"))
    uri = f"sqlite:///{folder}/mlflow.db"
    settings = TrainSettings(
        data=DataSettings(path=str(folder / "set")),
        train=FitSettings(epochs=1, worker_batch_size=16),
        tracking=TrackingSettings(uri=uri, experiment="ours"),
        register=RegisterSettings(),
    )
    spark = spark_session()
    plain = train(spark, settings)
    client = mlflow.MlflowClient(uri)
    theirs = client.create_run(client.create_experiment("theirs")).info.run_id
    client.set_terminated(theirs, "FINISHED")
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("theirs")
    os.environ["MLFLOW_RUN_ID"] = theirs
    mlflow.tensorflow.autolog()
    second = train(spark, settings)
    runs = [client.get_run(run_id) for run_id in (plain.run_id, second.run_id, theirs)]
    ours = client.get_experiment_by_name("ours")
    assert ours is not None
    described = [
        {
            "status": run.info.status,
            "ours": run.info.experiment_id == ours.experiment_id,
            "params": run.data.params,
            "metrics": sorted(run.data.metrics),
        }
        for run in runs
    ]
    print(
        json.dumps(
            {
                "runs": described,
                "runs of ours": len(client.search_runs([ours.experiment_id])),
                "autologging is on again": not autologging_is_disabled("tensorflow"),
                "variable is back": os.environ["MLFLOW_RUN_ID"] == theirs,
                "said": [line.replace(theirs, "THEIRS") for line in said],
            }
        )
    )
    spark.stop()


class _Collector(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
