"""Training and scoring against a real MLflow server, over HTTP."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
import requests
from pyspark.sql import SparkSession
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from cnnlib.config import PredictionsOutputSettings, ScoreInputSettings, ScoreSettings, TrackingSettings
from pipelines.score import score
from pipelines.train import train
from tests.conftest import TEST_DIGITS
from tests.spark.conftest import Trained

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a server on the loopback interface that keeps runs, models and artifacts of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store = (
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/server.db",
        "--artifacts-destination",
        str(tmp_path / "kept"),
    )
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with open(tmp_path / "log", "w") as log, subprocess.Popen([*command, *store], stdout=log, stderr=log) as process:
        url = f"http://127.0.0.1:{port}"
        with requests.Session() as session:
            session.mount("http://", HTTPAdapter(max_retries=Retry(total=12, connect=12, backoff_factor=0.25)))
            assert session.get(f"{url}/health", timeout=60).text == "OK", (tmp_path / "log").read_text()
        yield url
        process.terminate()


def test_run_model_and_alias_live_on_the_server(
    spark: SparkSession, trained: Trained, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    tracking = TrackingSettings(experiment="served")
    short = trained.settings.train.model_copy(update={"epochs": 1})
    model = train(spark, trained.settings.model_copy(update={"tracking": tracking, "train": short}))
    client = mlflow.MlflowClient(server)
    assert client.get_run(model.run_id).data.metrics["val_accuracy"] == pytest.approx(model.history["val_accuracy"][-1])
    assert [a.path for a in client.list_artifacts(model.run_id, "checkpoints")] == ["checkpoints/epoch-0001"]
    assert str(client.get_model_version_by_alias("digits", "champion").version) == model.version == "1"
    experiment_id = client.get_run(model.run_id).info.experiment_id
    assert model.run_url == f"{server}/#/experiments/{experiment_id}/runs/{model.run_id}"
    assert model.ui_command is None
    result = score(
        spark,
        ScoreSettings(
            model="models:/digits@champion",
            input=ScoreInputSettings(path=trained.image_set.folder.uri),
            output=PredictionsOutputSettings(path=str(tmp_path / "out")),
            tracking=tracking,
        ),
    )
    assert result.counts == {"rows": TEST_DIGITS, "scored": TEST_DIGITS, "failed": 0}
