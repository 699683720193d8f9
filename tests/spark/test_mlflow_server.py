"""Training and scoring against a real MLflow server, over HTTP."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlflow
import pytest
import requests
from pyspark.sql import SparkSession
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from cnnlib.config import PredictionsOutputSettings, ScoreInputSettings, ScoreSettings, TrackingSettings
from pipelines.progress import Progress
from pipelines.score import score
from pipelines.tracking import Tracker, use_store
from pipelines.train import train
from tests.conftest import TEST_DIGITS
from tests.spark.conftest import Trained

pytestmark = pytest.mark.slow


AWAY_SECONDS = 60


class Server:
    """An MLflow server on the loopback interface that keeps runs, models and artifacts of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        store = (
            *("--backend-store-uri", f"sqlite:///{self._folder}/server.db"),
            *("--artifacts-destination", str(self._folder / "kept")),
        )
        with open(self._folder / "log", "a") as log:
            self._process = subprocess.Popen(
                [*command, "--workers", "1", *store], stdout=log, stderr=log, start_new_session=True
            )
        with requests.Session() as session:
            session.mount("http://", HTTPAdapter(max_retries=Retry(total=12, connect=12, backoff_factor=0.25)))
            assert session.get(f"{self.url}/health", timeout=60).text == "OK", (self._folder / "log").read_text()

    def kill(self) -> None:
        """End it and all its processes at once."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


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


class CutsAnswersShort(BaseHTTPRequestHandler):
    """Hands requests on to a server, and breaks off in the middle of the first answer to each kind of them."""

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
        """Keep quiet."""


@pytest.fixture
def cutting_server(server: str) -> Iterator[str]:
    handler = type("Handler", (CutsAnswersShort,), {"server_url": server, "cut": set()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as proxy:
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{proxy.server_port}"
        proxy.shutdown()
        thread.join()


def test_answers_that_are_cut_short_cost_nothing(server: str, cutting_server: str, tmp_path: Path) -> None:
    client = mlflow.MlflowClient(server)
    run = client.create_run("0")
    tracker = Tracker(run.info.run_id, "0", cutting_server)
    checkpoint = tmp_path / "epoch-0001"
    checkpoint.mkdir()
    (checkpoint / "state.json").write_text("{}")

    # MLflow 2 takes artifacts to the store that is in use, not to the client's.
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


def test_server_that_is_away_for_a_minute_costs_nothing(
    spark: SparkSession, trained: Trained, mlflow_server: Server
) -> None:
    client = mlflow.MlflowClient(mlflow_server.url)
    told: list[str] = []
    back = threading.Timer(AWAY_SECONDS, mlflow_server.start)

    class Watched(Progress):
        def say(self, text: str) -> None:
            told.append(text)
            if text.startswith("epoch 2/5"):
                mlflow_server.kill()
                back.start()

    settings = trained.settings.model_copy(
        update={
            "tracking": TrackingSettings(uri=mlflow_server.url),
            "train": trained.settings.train.model_copy(update={"epochs": 5, "patience": 0}),
        }
    )
    model = train(spark, settings, Watched())
    back.join()
    # Training went on meanwhile, for its epochs take a second.
    assert [line[:9] for line in told if line.startswith("epoch")] == [f"epoch {epoch}/5" for epoch in range(1, 6)]
    for metric, values in model.history.items():
        logged = client.get_metric_history(model.run_id, metric)
        assert [(value.step, value.value) for value in logged] == list(enumerate(values, start=1)), metric
    names = [artifact.path for artifact in client.list_artifacts(model.run_id, "checkpoints")]
    assert names == [f"checkpoints/epoch-{epoch:04d}" for epoch in range(1, 6)]
    for name in names:
        assert len(client.list_artifacts(model.run_id, name)) == 2
    assert client.get_run(model.run_id).info.status == "FINISHED"
