"""`tune` on images that a model learns in seconds: its trials, its files, and resuming after a kill."""

import csv
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import mlflow
import psutil
import pytest
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from PIL import Image
from pyspark.sql import SparkSession

from cnnlib.config import TrainSettings, TuneSettings
from cnnlib.errors import ConfigError, HostError, TrainingError
from cnnlib.image_set.contract import ImageSet
from jobs.settings import parse_settings
from pipelines.tune.flow import Tuned, tune
from tests.spark.own_process import run
from tests.spark.tune_cluster import EPOCHS
from tests.unit.trainings import striped_set

TIMEOUT_S = 150.0

HAS_SPARK_STUDY = (
    find_spec("mlflow.pyspark.optuna") is not None and find_spec("mlflow.pyspark.optuna.study") is not None
)
needs_spark_study = pytest.mark.skipif(not HAS_SPARK_STUDY, reason="this MLflow has no study on Spark")

# At the low rate a model learns nothing. sgd has no beta_1, so it fails.
SPACE = {
    "optimizer.learning_rate": "choice(1e-7,1e-3)",
    "optimizer.name": "choice(adam,nadam,sgd)",
    "optimizer.options.beta_1": "uniform(0.8,0.9)",
}


@pytest.fixture(scope="module")
def striped(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return striped_set(tmp_path_factory.mktemp("striped"))


def settings_of(image_set: ImageSet, folder: Path, space: dict[str, str], **tuning: object) -> TuneSettings:
    return TuneSettings(
        data={"path": image_set.folder.uri},
        model={"name": "mlp"},
        train={"epochs": 3, "worker_batch_size": 32, "patience": 0, "monitor": "val_loss"},
        tracking={"uri": f"sqlite:///{folder}/mlflow.db"},
        tune={"space": space, **tuning},
        output={"path": str(folder / "out")},
    )


@pytest.mark.skipif(HAS_SPARK_STUDY, reason="this MLflow has a study on Spark")
def test_missing_spark_study_is_refused(spark: SparkSession, striped: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="tune needs MLflow's study on Spark .* install MLflow 3"):
        tune(spark, settings_of(striped, tmp_path, SPACE))


@pytest.fixture(scope="module")
def tuned(
    spark: SparkSession,
    striped: ImageSet,
    tmp_path_factory: pytest.TempPathFactory,
    new_store: Callable[[Path], str],
) -> tuple[Tuned, mlflow.MlflowClient]:
    folder = tmp_path_factory.mktemp("tuned")
    new_store(folder)
    settings = settings_of(striped, folder, SPACE, trials=12, startup_trials=3, seed=1)
    return tune(spark, settings), mlflow.MlflowClient(settings.tracking.uri)


def nested(client: mlflow.MlflowClient, run_id: str) -> list[Run]:
    experiment = client.get_run(run_id).info.experiment_id
    runs = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run_id}'")
    return sorted(runs, key=lambda run: run.info.start_time)


@needs_spark_study
def test_each_trial_is_a_nested_run(tuned: tuple, striped: ImageSet) -> None:
    result, client = tuned
    runs = {run.info.run_id: run for run in nested(client, result.run_id)}
    assert len(runs) == len(result.trials) == 12
    assert sorted(trial.number for trial in result.trials) == list(range(12))
    for trial in result.trials:
        run = runs[trial.run_id]
        assert run.info.run_name == f"trial {trial.number}"
        for name, value in trial.settings.items():
            assert run.data.params[name] == str(value)
        epochs = [value.step for value in client.get_metric_history(trial.run_id, "val_accuracy")]
        assert epochs == list(range(1, trial.epochs + 1))
        if trial.epochs:
            assert run.data.tags["sparkcnn_fingerprint"] == striped.fingerprint
            assert run.data.params["train.worker_batch_size"] == "32"
    assert client.get_run(result.run_id).info.status == "FINISHED"
    assert client.search_registered_models() == []


@needs_spark_study
def test_bad_trials_are_pruned_and_impossible_ones_fail(tuned: tuple) -> None:
    result, client = tuned
    by_state = {state: [t for t in result.trials if t.state == state] for state in ("complete", "pruned", "failed")}
    assert [trial.epochs for trial in by_state["complete"]] == [3] * len(by_state["complete"])
    assert by_state["pruned"]
    median = statistics.median(trial.value for trial in by_state["complete"])
    for trial in by_state["pruned"]:
        assert (trial.epochs < 3, trial.value > median) == (True, True)
        assert client.get_run(trial.run_id).info.status == "KILLED"
    assert 1e-7 in {trial.settings["optimizer.learning_rate"] for trial in by_state["pruned"]}
    assert by_state["failed"]
    for trial in by_state["failed"]:
        assert trial.settings["optimizer.name"] == "sgd"
        assert trial.error.startswith("ConfigError: ")
        assert "beta_1" in trial.error
        assert client.get_run(trial.run_id).info.status == "FAILED"


@needs_spark_study
def test_settings_of_the_best_trial_are_a_file_for_train(tuned: tuple) -> None:
    result, client = tuned
    best = result.trials[0]
    complete = [trial for trial in result.trials if trial.state == "complete"]
    values = [min(v.value for v in client.get_metric_history(t.run_id, "val_loss")) for t in complete]
    assert [trial.value for trial in complete] == pytest.approx(values)
    assert best.value == min(values)
    assert best.settings["optimizer.learning_rate"] == 0.001
    settings = parse_settings("train", TrainSettings, ["--config", str(result.folder / "best.yaml")])
    assert settings == result.best
    assert settings.optimizer.options == {"beta_1": best.settings["optimizer.options.beta_1"]}
    assert (settings.optimizer.learning_rate, settings.model.name, settings.train.epochs) == (0.001, "mlp", 3)


@pytest.mark.main_path
@needs_spark_study
def test_best_of_few_trials_is_a_file_for_train(
    spark: SparkSession, striped: ImageSet, tmp_path: Path, new_store: Callable[[Path], str]
) -> None:
    new_store(tmp_path)
    space = {"optimizer.learning_rate": "choice(1e-7,1e-3)", "optimizer.options.beta_1": "uniform(0.8,0.9)"}
    settings = settings_of(striped, tmp_path, space, trials=4, startup_trials=4, parallel=2, seed=1)
    result, client = tune(spark, settings), mlflow.MlflowClient(settings.tracking.uri)
    assert {run.info.run_id for run in nested(client, result.run_id)} == {trial.run_id for trial in result.trials}
    values = [min(v.value for v in client.get_metric_history(t.run_id, "val_loss")) for t in result.trials]
    assert [trial.value for trial in result.trials] == pytest.approx(sorted(values))
    assert len(values) == 4
    # Two trials run at once, so what they draw is random in spite of the seed.
    assert {trial.settings["optimizer.learning_rate"] for trial in result.trials} <= {1e-7, 1e-3}
    best = parse_settings("train", TrainSettings, ["--config", str(result.folder / "best.yaml")])
    assert best == result.best
    assert best.optimizer.learning_rate == result.trials[0].settings["optimizer.learning_rate"]
    assert best.optimizer.options == {"beta_1": result.trials[0].settings["optimizer.options.beta_1"]}


@needs_spark_study
def test_files_are_in_folder_and_run(tuned: tuple, tmp_path: Path) -> None:
    result, client = tuned
    for name in ("best.yaml", "trials.csv", "importance.png"):
        kept = Path(client.download_artifacts(result.run_id, name, str(tmp_path)))
        assert kept.read_bytes() == (result.folder / name).read_bytes()
    with open(result.folder / "trials.csv") as file:
        assert [int(row["trial"]) for row in csv.DictReader(file)] == [trial.number for trial in result.trials]
    with Image.open(result.folder / "importance.png") as figure:
        assert (figure.format, len(figure.getcolors(2**20)) > 20) == ("PNG", True)
    assert sum(result.importances.values()) == pytest.approx(1)
    assert set(result.importances) == set(SPACE)


@needs_spark_study
def test_study_without_a_complete_trial_says_why(spark: SparkSession, striped: ImageSet, tmp_path: Path) -> None:
    space = SPACE | {"optimizer.name": "choice(sgd)"}
    settings = settings_of(striped, tmp_path, space, trials=3, parallel=2)
    with pytest.raises(TrainingError, match="none of 3 trials is complete; the first one says: ConfigError: .*beta"):
        tune(spark, settings)
    client = mlflow.MlflowClient(settings.tracking.uri)
    (study,) = [r for r in client.search_runs(["1"]) if "mlflow.parentRunId" not in r.data.tags]
    assert study.info.status == "FAILED"


@needs_spark_study
def test_unbuildable_value_is_refused_before_any_trial(spark: SparkSession, striped: ImageSet, tmp_path: Path) -> None:
    space = SPACE | {"model.options.activation": "choice(relu,rleu)"}
    with pytest.raises(ConfigError, match="model.options.activation=rleu cannot be trained: "):
        tune(spark, settings_of(striped, tmp_path, space))
    assert not (tmp_path / "mlflow.db").exists()


@needs_spark_study
def test_killed_study_resumes_and_keeps_finished_trials(striped: ImageSet, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    arguments = (
        *("--data.path", striped.folder.uri, "--model.name", "mlp", "--train.epochs", "30", "--train.patience", "0"),
        *("--tune.space.optimizer.learning_rate", "loguniform(1e-4,1e-2)", "--tune.startup_trials", "9"),
        *("--tune.space.optimizer.name", "choice(adam,rmsprop)", "--train.worker_batch_size", "32"),
        *("--tune.trials", "4", "--tune.parallel", "2", "--tune.resume", "auto", "--tracking.uri", uri),
    )

    def start() -> subprocess.Popen:
        with open(tmp_path / "log", "a") as log:
            command = [sys.executable, "-m", "jobs.sparkcnn", "tune", *arguments]
            return subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)

    client = mlflow.MlflowClient(uri)

    def study_and_trials() -> tuple[Run | None, list[Run]]:
        try:
            runs = client.search_runs([client.get_experiment_by_name("sparkcnn").experiment_id])
        except (AttributeError, MlflowException):  # The store is not complete yet.
            return None, []
        studies = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
        return (studies[0], nested(client, studies[0].info.run_id)) if studies else (None, [])

    def has(runs: list[Run], status: str) -> set[str]:
        return {run.info.run_id for run in runs if run.info.status == status}

    def epochs_of(run: Run) -> int:
        return len(client.get_metric_history(run.info.run_id, "val_accuracy"))

    process = start()
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        study, before = study_and_trials()
        # Wait for a trial at the beginning of its epochs, so that it cannot finish before the kill.
        if has(before, "FINISHED") and any(0 < epochs_of(run) <= 5 for run in before if run.info.status == "RUNNING"):
            break
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert psutil.wait_procs(children, TIMEOUT_S)[1] == []
    _, before = study_and_trials()
    lost = has(before, "RUNNING")
    assert lost

    assert start().wait(TIMEOUT_S) == 0, (tmp_path / "log").read_text()
    resumed, after = study_and_trials()
    assert (resumed.info.run_id, resumed.info.status) == (study.info.run_id, "FINISHED")
    assert has(before, "FINISHED") < has(after, "FINISHED")
    assert len(has(after, "FINISHED")) == 4
    assert has(after, "FAILED") == lost
    # A trial that was killed at its start has not drawn settings yet.
    drawn = [run.data.params["optimizer.learning_rate"] for run in after if run.data.params]
    assert len(set(drawn)) == len(drawn) >= 4  # No settings were tried twice.
    with open(tmp_path / "results" / "trials.csv") as file:
        rows = list(csv.DictReader(file))
    assert {row["run_id"] for row in rows} == has(after, "FINISHED")
    assert len({row["trial"] for row in rows}) == 4


@needs_spark_study
def test_lost_trial_is_repeated_and_missing_gpu_is_an_error(tmp_path: Path) -> None:
    found = run("tune_cluster", tmp_path)
    trials = {run_id: (state, epochs) for run_id, state, epochs in found["trials"]}
    assert list(trials.values()) == [("complete", EPOCHS)] * 3
    statuses = found["statuses"]
    assert statuses.pop(found["study"]) == "FINISHED"
    lost = statuses.keys() - trials.keys()
    assert {statuses[run_id] for run_id in lost} == {"FAILED"}
    assert {statuses[run_id] for run_id in trials} == {"FINISHED"}
    assert found["refused"].startswith(
        "none of 1 trials is complete; the first one says: HostError: Spark assigned GPU 5 to a task of the study, "
        "but TensorFlow finds no such GPU;"
    )
