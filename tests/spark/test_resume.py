"""Resume an interrupted training: it continues exactly, in its own run, and never in another one."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.entities import Run
from pyspark.sql import SparkSession

from cnnlib.config import IngestSettings, RegisterSettings, TrackingSettings, TrainSettings
from cnnlib.errors import ConfigError
from cnnlib.image_set.contract import ImageSet
from cnnlib.training.checkpoints import read_checkpoint
from pipelines.ingest.flow import ingest
from pipelines.tracking.store import connect
from pipelines.train.flow import described_settings, train
from tests.spark.conftest import Trained

TRAIN = (sys.executable, "-m", "jobs.sparkcnn", "train")


@pytest.fixture(scope="module")
def small_groups(spark: SparkSession, digits_idx: Path, tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """The 600 digits in row groups of 50."""
    path = tmp_path_factory.mktemp("small") / "digits"
    source = {"format": "idx", "path": str(digits_idx)}
    return ingest(spark, IngestSettings(source=source, output={"path": str(path), "row_group_mb": 50 * 784 / 2**20}))


@dataclass(frozen=True)
class Command:
    """`sparkcnn train` in another process."""

    folder: Path
    arguments: tuple[str, ...]

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder}/mlflow.db"

    def start(self, *more: str) -> subprocess.Popen[str]:
        log = open(self.folder / "log", "a")  # noqa: SIM115  (the process writes to it)
        return subprocess.Popen([*TRAIN, *self.arguments, "--tracking.uri", self.uri, *more], stdout=log, stderr=log)

    def run(self, *more: str) -> Run:
        assert self.start(*more).wait(300) == 0, (self.folder / "log").read_text()
        return self.only_run()

    def only_run(self) -> Run:
        (run,) = mlflow.MlflowClient(self.uri).search_runs(["1"])
        return run

    def progress(self, process: subprocess.Popen[str]) -> Iterator[Run]:
        """Yield the current state of the run again and again while the process lives."""
        client = mlflow.MlflowClient(self.uri)
        while True:
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
                return
            if (self.folder / "mlflow.db").exists():
                # The store may not be complete yet.
                with suppress(mlflow.MlflowException):
                    yield from client.search_runs(["1"])

    def weights(self) -> list[np.ndarray]:
        run = self.only_run()
        path = mlflow.MlflowClient(self.uri).download_artifacts(
            run.info.run_id, "checkpoints/epoch-0004", str(self.folder)
        )
        return read_checkpoint(Path(path))[0].get_weights()


def test_killed_and_resumed_training_gets_the_same_weights(small_groups: ImageSet, tmp_path: Path) -> None:
    arguments = (
        *("--data.path", small_groups.folder.uri, "--train.workers", "1", "--train.deterministic", "true"),
        *("--train.epochs", "4", "--train.patience", "0", "--train.worker_batch_size", "2", "--train.seed", "4"),
    )
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole, killed = Command(tmp_path / "whole", arguments), Command(tmp_path / "killed", arguments)
    whole.run()

    process = killed.start()
    for run in killed.progress(process):
        if run.data.tags.get("sparkcnn_latest_checkpoint") == "2":
            os.kill(process.pid, signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    interrupted = killed.only_run()
    assert interrupted.info.status == "RUNNING"  # The killed process could not change it.
    resumed = killed.run("--train.resume", "auto")

    assert resumed.info.run_id == interrupted.info.run_id
    assert resumed.info.status == "FINISHED"
    client = mlflow.MlflowClient(killed.uri)
    for metric in ("loss", "val_accuracy", "images_per_second"):
        steps = [value.step for value in client.get_metric_history(resumed.info.run_id, metric)]
        assert steps == [1, 2, 3, 4]
    for ours, theirs in zip(killed.weights(), whole.weights(), strict=True):
        assert np.abs(ours - theirs).max() <= 1e-6


@pytest.fixture(scope="module")
def interrupted(
    spark: SparkSession,
    trained: Trained,
    tmp_path_factory: pytest.TempPathFactory,
    new_store: Callable[[Path], str],
) -> tuple[TrainSettings, str]:
    """A training of 2 epochs with a run that is marked as failed after them: (settings, id of the run)."""
    folder = tmp_path_factory.mktemp("interrupted")
    settings = trained.settings.model_copy(
        update={
            "train": trained.settings.train.model_copy(update={"epochs": 2}),
            "tracking": TrackingSettings(uri=new_store(folder)),
            "register": RegisterSettings(),
        }
    )
    run_id = train(spark, settings).run_id
    mlflow.MlflowClient(settings.tracking.uri).set_terminated(run_id, "FAILED")
    return settings, run_id


def resumed(settings: TrainSettings, resume: str, **train_settings: object) -> TrainSettings:
    return settings.model_copy(update={"train": settings.train.model_copy(update={"resume": resume, **train_settings})})


@pytest.mark.main_path
def test_resume_registers_a_finished_training(spark: SparkSession, interrupted: tuple) -> None:
    settings, run_id = interrupted
    model = train(spark, resumed(settings, run_id))
    assert (model.run_id, len(model.history["loss"])) == (run_id, 2)
    client = mlflow.MlflowClient(settings.tracking.uri)
    assert client.get_run(run_id).info.status == "FINISHED"
    assert len(client.get_metric_history(run_id, "loss")) == 2
    with pytest.raises(ConfigError, match=f"train.resume={run_id} has already finished"):
        train(spark, resumed(settings, run_id))
    client.set_terminated(run_id, "FAILED")


@pytest.mark.main_path
def test_resume_logs_missing_metrics(spark: SparkSession, trained: Trained) -> None:
    settings = trained.settings.model_copy(update={"register": RegisterSettings()})
    client = mlflow.MlflowClient(settings.tracking.uri)
    # Make a run like that of a training that died between the upload of a checkpoint and its metrics.
    first = trained.model.run_id
    run = client.create_run("1", tags={k: v for k, v in client.get_run(first).data.tags.items() if "sparkcnn" in k})
    for name, value in described_settings(settings, connect(settings.tracking)).items():
        client.log_param(run.info.run_id, name, value)
    folder = client.download_artifacts(first, "checkpoints")
    client.log_artifacts(run.info.run_id, folder, "checkpoints")
    model = train(spark, resumed(settings, run.info.run_id))
    for metric, values in trained.model.history.items():
        logged = client.get_metric_history(model.run_id, metric)
        assert [(value.step, value.value) for value in logged] == list(enumerate(values, start=1))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"epochs": 3}, "train.epochs was 2, received 3"),
        ({"seed": 9, "worker_batch_size": 16}, "train.seed was 5, received 9; train.worker_batch_size was 32"),
    ],
)
def test_changed_setting_is_named(spark: SparkSession, interrupted: tuple, changed: dict, says: str) -> None:
    settings, run_id = interrupted
    with pytest.raises(ConfigError, match=f"train.resume={run_id} was started with other settings or images: .*{says}"):
        train(spark, resumed(settings, run_id, **changed))
    assert mlflow.MlflowClient(settings.tracking.uri).get_run(run_id).info.status == "FAILED"


def test_another_image_set_is_named(spark: SparkSession, interrupted: tuple, small_groups: ImageSet) -> None:
    settings, run_id = interrupted
    other = settings.model_copy(update={"data": settings.data.model_copy(update={"path": small_groups.folder.uri})})
    with pytest.raises(ConfigError, match="data.path was .*, received "):
        train(spark, resumed(other, run_id))


def test_same_path_with_other_images_is_named(
    spark: SparkSession, interrupted: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, run_id = interrupted
    client = mlflow.MlflowClient(settings.tracking.uri)
    was = client.get_run(run_id).data.tags["sparkcnn_fingerprint"]
    client.set_tag(run_id, "sparkcnn_fingerprint", "of another ingest")
    with pytest.raises(ConfigError, match=f"fingerprint was of another ingest, received {was}"):
        train(spark, resumed(settings, run_id))
    client.set_tag(run_id, "sparkcnn_fingerprint", was)


def test_unknown_run_is_named(spark: SparkSession, interrupted: tuple) -> None:
    settings, _ = interrupted
    with pytest.raises(ConfigError, match="train.resume=nobody is not a run of this store"):
        train(spark, resumed(settings, "nobody"))


def test_auto_resume_without_a_fitting_run_starts_a_new_one(spark: SparkSession, interrupted: tuple) -> None:
    settings, run_id = interrupted
    model = train(spark, resumed(settings, "auto", epochs=1))
    assert model.run_id != run_id
    assert len(model.history["loss"]) == 1
