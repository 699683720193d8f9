"""Train and score with a real MLflow server, over HTTP."""

import json
import threading
import time
import zipfile
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlflow
import pytest
import requests
from pyspark.sql import SparkSession

from cnnlib.config import PredictionsOutputSettings, ScoreInputSettings, ScoreSettings, TrackingSettings
from pipelines.score.flow import score
from pipelines.spark.progress import Progress
from pipelines.tracking.store import use_store
from pipelines.tracking.tracker import Tracker
from pipelines.train.flow import train
from tests.conftest import TEST_DIGITS
from tests.spark.conftest import Trained
from tests.spark.mlflow_server import Server

AWAY_SECONDS = 60


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def server(mlflow_server: Server) -> str:
    return mlflow_server.url


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


def saving_time(checkpoint: Path) -> float:
    """Return the time at which Keras saved the model of a checkpoint, as `time.time()` rounded down to seconds."""
    with zipfile.ZipFile(checkpoint / "model.keras") as archive:
        saved = json.loads(archive.read("metadata.json"))["date_saved"]
    return datetime.strptime(saved, "%Y-%m-%d@%H:%M:%S").timestamp()


class CutsAnswersShort(BaseHTTPRequestHandler):
    """Passes requests on to a server, and truncates the first answer to each kind of request."""

    server_url: str
    cut: set[tuple[str, str]]

    def hand_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        kept = {name: value for name, value in self.headers.items() if name not in ("Host", "Connection")}
        answer = requests.request(self.command, self.server_url + self.path, data=body, headers=kept, timeout=30)
        kind = (self.command, self.path.partition("?")[0])
        whole = kind in self.cut
        self.cut.add(kind)
        self.send_response(answer.status_code)
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content if whole else answer.content[:1])

    do_GET = do_POST = do_PUT = hand_on

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@pytest.fixture
def cutting_server(server: str) -> Iterator[str]:
    handler = type("Handler", (CutsAnswersShort,), {"server_url": server, "cut": set()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as proxy:
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{proxy.server_port}"
        proxy.shutdown()
        thread.join()


def test_truncated_answers_are_retried(server: str, cutting_server: str, tmp_path: Path) -> None:
    client = mlflow.MlflowClient(server)
    run = client.create_run("0")
    tracker = Tracker(run.info.run_id, "0", cutting_server)
    checkpoint = tmp_path / "epoch-0001"
    checkpoint.mkdir()
    (checkpoint / "state.json").write_text("{}")

    # MLflow 2 uploads artifacts to the global store, not to the store of the client.
    use_store(cutting_server)
    tracker.log_settings({"train.epochs": 1})
    tracker.log_epoch(1, {"loss": 0.5})
    tracker.log_checkpoint(1, checkpoint)
    tracker.log_best(1, "loss", 0.5)
    assert tracker.logged_epochs("loss") == {1}
    assert tracker.latest_epoch() == 1

    kept = client.get_run(run.info.run_id).data
    assert kept.params == {"train.epochs": "1"}
    assert kept.metrics == {"loss": 0.5, "best_loss": 0.5}
    assert [value.step for value in client.get_metric_history(run.info.run_id, "loss")] == [1]
    (kept_file,) = (tmp_path / "kept").rglob("state.json")
    assert (kept_file.parts[-3:-1], kept_file.read_text()) == (("checkpoints", "epoch-0001"), "{}")


@pytest.mark.parametrize(("workers", "epochs", "away_seconds"), [(0, 5, AWAY_SECONDS), (1, 12, 6)], ids=str)
def test_training_survives_a_server_outage(
    spark: SparkSession,
    trained: Trained,
    mlflow_server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
    epochs: int,
    away_seconds: float,
) -> None:
    # With this factor, MLflow tries again after 6, 18, 42 and 90 s. By default it would try after 60 s, just before the
    # server returns, and then only after 124 s.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "3")
    printed: list[str] = []
    latest: list[int] = []
    returned: list[float] = []

    def come_back() -> None:
        returned.append(time.time())
        mlflow_server.start()

    back = threading.Timer(away_seconds, come_back)

    class Watched(Progress):
        def say(self, text: str) -> None:
            printed.append(text)
            if text.startswith(f"epoch 2/{epochs}:"):
                mlflow_server.kill()
                back.start()
                latest.append(mlflow_server.latest_epoch())

    fit = {"epochs": epochs, "patience": 0, "workers": workers}
    settings = trained.settings.model_copy(
        update={
            "tracking": TrackingSettings(uri=mlflow_server.url),
            "train": trained.settings.train.model_copy(update=fit),
        }
    )
    model = train(spark, settings, Watched())
    back.join()
    client = mlflow.MlflowClient(mlflow_server.url)
    for metric, values in model.history.items():
        logged = client.get_metric_history(model.run_id, metric)
        assert [(value.step, value.value) for value in logged] == list(enumerate(values, start=1)), metric
    folder = Path(
        mlflow.artifacts.download_artifacts(run_id=model.run_id, artifact_path="checkpoints", dst_path=str(tmp_path))
    )
    saved = [folder / f"epoch-{epoch:04d}" for epoch in range(1, epochs + 1)]
    assert sorted(folder.iterdir()) == saved
    assert all(len(list(checkpoint.iterdir())) == 2 for checkpoint in saved)
    # Training continued during the outage. If it waited for uploads, it would have saved only one more epoch by then.
    assert saving_time(saved[latest[0] + 1]) < returned[0] - 1
    lines = [line.split(":")[0] for line in printed if line.startswith("epoch")]
    in_order = [f"epoch {epoch}/{epochs}" for epoch in range(1, epochs + 1)]
    # The driver reads the progress of workers from the server, which keeps only their last lines.
    assert lines == (in_order if not workers else [line for line in in_order if line in lines])
    assert lines[-1] == in_order[-1]
    assert client.get_run(model.run_id).info.status == "FINISHED"
