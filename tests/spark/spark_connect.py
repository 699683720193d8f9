"""Spark Connect, with a server that this starts. test_other_sessions.py runs this in another process.

Prints one line of JSON.
"""

import json
import os
import signal
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import mlflow
import numpy as np
import psutil
from pyspark.sql import SparkSession

from cnnlib.config import (
    FitSettings,
    GateSettings,
    PredictionsOutputSettings,
    PromoteSettings,
    PromotionDataSettings,
    ScoreInputSettings,
    ScoreSettings,
    TrackingSettings,
)
from cnnlib.errors import HostError
from cnnlib.image_set.contract import ImageSet
from cnnlib.quiet import import_tensorflow_quietly
from pipelines.evaluate.promote import Promotion, promote
from pipelines.ingest.flow import ingest
from pipelines.score.flow import score
from pipelines.spark.cluster import runs_here, store_problem, workers_problem
from pipelines.spark.session import spark_session
from pipelines.tracking.registry import TrainedOn, log_sealed_model
from pipelines.tracking.store import connect
from pipelines.train.workers import start_deadline
from pipelines.train.workers.launch import launch
from pipelines.train.workers.train_on_workers import launch_once
from tests.conftest import write_photos
from tests.spark.ingests import settings_of
from tests.spark.probes import PROBE_FILE, Probes, all_gone


def main(folder: Path) -> dict[str, object]:
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    os.environ["SPARK_REMOTE"] = "local[4]"
    options = {
        "spark.ui.enabled": "false",
        # Four cores and two cores per task: at most two tasks run at once.
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
    image_set = ingest(spark, settings_of("image_folder", photos, folder / "set", split={"test_fraction": 0.4}))
    found["ingested"] = asdict(image_set.counts)
    tracking = registered_twice(image_set, folder)
    found["scored"] = scored_twice(spark, photos, folder, tracking)
    found["gates"] = [[gate.name, gate.passed] for gate in promoted(spark, image_set, tracking).gates]
    spark.addArtifacts(str(PROBE_FILE), pyfile=True)
    probes = Probes(folder)
    found["launched"] = [asdict(one) for one in launch(spark, probes.plan("end", "end"))]
    # With too few slots, Spark itself reports that after 8 s.
    for name, start_deadline.SECONDS_TO_START in (("not begun", 3.0), ("too few slots", 60.0)):
        try:
            launch_once(spark, probes.plan("end", "end", "end"))
        except HostError as error:
            found[name] = error.message

    for path in folder.glob("*.json"):
        path.unlink()
    ranks: list[psutil.Process] = []

    def interrupt() -> None:
        ranks.extend(probes.started(2))
        os.kill(os.getpid(), signal.SIGINT)

    # Behave as with a remote server. This local one shares the process, and its handler would cancel the jobs itself.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt).start()
    try:
        launch(spark, probes.plan("wait", "wait"))
    except KeyboardInterrupt:
        found["interrupted"] = len(ranks)
    found["ranks are gone"] = all_gone(ranks)
    spark.stop()
    return found


def registered_twice(image_set: ImageSet, folder: Path) -> TrackingSettings:
    """Make a store with two versions of `shades`, an untrained model for the set. The first version is champion."""
    import_tensorflow_quietly()
    from cnnlib.models import build_model

    tracking = TrackingSettings(uri=f"sqlite:///{folder}/mlflow.db")
    connect(tracking)
    model = build_model("lenet", image_shape=image_set.image.shape, classes=2)
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("shades", artifact_location=f"{folder}/artifacts"))
    for _ in range(2):
        with mlflow.start_run():
            log_sealed_model(
                model, TrainedOn.of(image_set), np.zeros(image_set.image.shape, np.uint8), register_as="shades"
            )
    mlflow.MlflowClient().set_registered_model_alias("shades", "champion", "1")
    return tracking


def scored_twice(spark: SparkSession, photos: Path, folder: Path, tracking: TrackingSettings) -> list[dict[str, int]]:
    """Score the photos twice, and return the counts of both. The model is shipped once."""
    settings = ScoreSettings(
        model="models:/shades/1",
        input=ScoreInputSettings(path=str(photos), format="image_folder"),
        output=PredictionsOutputSettings(path=str(folder / "out"), overwrite=True),
        tracking=tracking,
    )
    return [score(spark, settings).counts for _ in range(2)]


def promoted(spark: SparkSession, image_set: ImageSet, tracking: TrackingSettings) -> Promotion:
    """Promote the second version."""
    settings = PromoteSettings(
        model="shades",
        challenger="2",
        data=PromotionDataSettings(path=image_set.folder.uri),
        # Both versions have the same weights, so neither is better, and no run has a checkpoint.
        gates=GateSettings(better=0.05, min_speed=0.05),
        tracking=tracking,
    )
    return promote(spark, settings)


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
