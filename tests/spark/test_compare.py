"""`compare` on images that a model learns in seconds: its runs, its files, and resuming after a kill."""

import csv
import math
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from PIL import Image
from pyspark.sql import SparkSession

from cnnlib.config import CompareSettings
from cnnlib.errors import ConfigError
from cnnlib.image_set.contract import ImageSet
from cnnlib.models import build_model
from pipelines.tune.compare import Compared, compare
from tests.unit.trainings import striped_set

TIMEOUT_S = 120.0


@pytest.fixture(scope="module")
def striped(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return striped_set(tmp_path_factory.mktemp("striped"))


def settings_of(image_set: ImageSet, folder: Path, over: str, **more: dict) -> CompareSettings:
    return CompareSettings(
        data={"path": image_set.folder.uri},
        train={"epochs": 2, "worker_batch_size": 32, "patience": 0} | more.pop("train", {}),
        tracking={"uri": f"sqlite:///{folder}/mlflow.db"},
        compare={"over": over, "seeds": [3, 5]} | more.pop("compare", {}),
        output={"path": str(folder / "out")},
        **more,
    )


@pytest.fixture(scope="module")
def compared(
    spark: SparkSession, striped: ImageSet, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Compared, mlflow.MlflowClient]:
    settings = settings_of(striped, tmp_path_factory.mktemp("compared"), "optimizer.name=sgd,adam")
    return compare(spark, settings), mlflow.MlflowClient(settings.tracking.uri)


def nested(client: mlflow.MlflowClient, run_id: str) -> list[Run]:
    experiment = client.get_run(run_id).info.experiment_id
    runs = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run_id}'")
    return sorted(runs, key=lambda run: run.info.start_time)


@pytest.mark.main_path
def test_each_training_is_a_nested_run(compared: tuple, striped: ImageSet) -> None:
    result, client = compared
    runs = nested(client, result.run_id)
    assert [(run.data.params["optimizer.name"], run.data.params["train.seed"]) for run in runs] == [
        (name, seed) for name in ("sgd", "adam") for seed in ("3", "5")
    ]
    for run in runs:
        assert (run.info.status, run.data.tags["sparkcnn_fingerprint"]) == ("FINISHED", striped.fingerprint)
        assert run.data.params["train.worker_batch_size"] == "32"
        for metric in ("loss", "val_accuracy", "images_per_second"):
            steps = [value.step for value in client.get_metric_history(run.info.run_id, metric)]
            assert steps == [1, 2], metric
        assert client.list_artifacts(run.info.run_id) == []
    assert client.search_registered_models() == []
    assert client.get_run(result.run_id).data.params["compare.over"] == "optimizer.name=sgd,adam"


@pytest.mark.main_path
def test_table_agrees_with_the_runs(compared: tuple) -> None:
    result, client = compared
    with open(result.folder / "comparison.csv") as file:
        rows = {row["optimizer.name"]: row for row in csv.DictReader(file)}
    for name, row in rows.items():
        ids = [r.info.run_id for r in nested(client, result.run_id) if r.data.params["optimizer.name"] == name]
        best = [max(v.value for v in client.get_metric_history(run_id, "val_accuracy")) for run_id in ids]
        assert len(best) == 2
        assert float(row["best_val_accuracy_mean"]) == pytest.approx(statistics.mean(best))
        assert float(row["best_val_accuracy_deviation"]) == pytest.approx(statistics.stdev(best))
    assert list(rows) == ["adam", "sgd"]  # At this learning rate, sgd learns nothing yet.


def test_figure_and_table_are_in_folder_and_run(compared: tuple, tmp_path: Path) -> None:
    result, client = compared
    for name in ("curves.png", "comparison.csv"):
        kept = Path(client.download_artifacts(result.run_id, name, str(tmp_path)))
        assert kept.read_bytes() == (result.folder / name).read_bytes()
    with Image.open(result.folder / "curves.png") as figure:
        assert (figure.format, figure.width > 800, len(figure.getcolors(2**20)) > 50) == ("PNG", True, True)


def test_unbuildable_value_is_refused_before_training(spark: SparkSession, striped: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="model.options.activation=rleu cannot be trained: "):
        compare(spark, settings_of(striped, tmp_path, "model.options.activation=relu,rleu"))
    assert not (tmp_path / "mlflow.db").exists()


def test_value_that_cannot_take_the_weights_is_refused(spark: SparkSession, striped: ImageSet, tmp_path: Path) -> None:
    build_model("lenet", image_shape=(16, 16, 1), classes=3).save(tmp_path / "model.keras")
    settings = settings_of(striped, tmp_path, "model.name=lenet,mlp", model={"weights": str(tmp_path)})
    with pytest.raises(ConfigError, match="model.name=mlp cannot be trained: model.weights=.* do not fit layer"):
        compare(spark, settings)
    client = mlflow.MlflowClient(settings.tracking.uri)
    assert client.get_experiment_by_name(settings.tracking.experiment) is None


def test_value_that_diverges_is_a_result_beside_the_others(
    spark: SparkSession, striped: ImageSet, tmp_path: Path
) -> None:
    over = "optimizer.learning_rate=0.01,1e20"
    settings = settings_of(striped, tmp_path, over, compare={"seeds": [3]}, train={"epochs": 1})
    result = compare(spark, settings)
    runs = nested(mlflow.MlflowClient(settings.tracking.uri), result.run_id)
    assert [run.info.status for run in runs] == ["FINISHED", "FAILED"]
    learnt, diverged = (contender.best("val_accuracy", "max").mean for contender in result.comparison.contenders)
    assert learnt > 0.3
    assert math.isnan(diverged)
    assert (result.folder / "curves.png").exists()


def test_finished_comparison_cannot_be_resumed(compared: tuple, spark: SparkSession, striped: ImageSet) -> None:
    result, _ = compared
    folder = result.folder.parent
    settings = settings_of(striped, folder, "optimizer.name=sgd,adam", compare={"resume": result.run_id})
    with pytest.raises(
        ConfigError, match=f"compare.resume={result.run_id} has already finished; leave out compare.resume"
    ):
        compare(spark, settings)


def test_workers_train_too(spark: SparkSession, striped: ImageSet, tmp_path: Path) -> None:
    settings = settings_of(
        striped, tmp_path, "optimizer.name=adam", compare={"seeds": 1}, train={"workers": 1, "epochs": 1}
    )
    result = compare(spark, settings)
    (run,) = nested(mlflow.MlflowClient(settings.tracking.uri), result.run_id)
    (attempt,) = result.comparison.contenders[0].attempts
    assert (run.info.status, run.data.params["train.workers"]) == ("FINISHED", "1")
    assert attempt.history["val_accuracy"] == [run.data.metrics["val_accuracy"]]


def test_killed_comparison_resumes_and_keeps_finished_runs(striped: ImageSet, tmp_path: Path) -> None:
    arguments = (
        *("--data.path", striped.folder.uri, "--compare.over", "optimizer.name=sgd,adam", "--compare.seeds", "2"),
        *("--train.epochs", "12", "--train.patience", "0", "--train.worker_batch_size", "32"),
        *("--compare.resume", "auto", "--tracking.uri", f"sqlite:///{tmp_path}/mlflow.db"),
    )

    def start() -> subprocess.Popen:
        with open(tmp_path / "log", "a") as log:
            command = [sys.executable, "-m", "jobs.sparkcnn", "compare", *arguments]
            return subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")

    def parent_and_nested() -> tuple[Run | None, list[Run]]:
        try:
            runs = client.search_runs([client.get_experiment_by_name("sparkcnn").experiment_id])
        except (AttributeError, MlflowException):  # The store is not complete yet.
            return None, []
        parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
        return (parents[0], nested(client, parents[0].info.run_id)) if parents else (None, [])

    process = start()
    deadline = time.monotonic() + TIMEOUT_S
    while [run.info.status for run in parent_and_nested()[1]] != ["FINISHED", "RUNNING"]:
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    parent, (first, second) = parent_and_nested()
    assert (parent.info.status, second.info.status) == ("RUNNING", "RUNNING")  # The killed process could not change it.

    assert start().wait(TIMEOUT_S) == 0, (tmp_path / "log").read_text()
    resumed, runs = parent_and_nested()
    assert (resumed.info.run_id, resumed.info.status) == (parent.info.run_id, "FINISHED")
    assert [run.info.run_id for run in runs[:2]] == [first.info.run_id, second.info.run_id]
    assert [run.info.status for run in runs] == ["FINISHED", "FAILED", "FINISHED", "FINISHED", "FINISHED"]
    with open(tmp_path / "results" / "comparison.csv") as file:
        assert sorted((row["optimizer.name"], row["seeds"]) for row in csv.DictReader(file)) == [
            ("adam", "2"),
            ("sgd", "2"),
        ]
