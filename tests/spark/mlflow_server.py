"""A real MLflow server, for tests that need one."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import mlflow
import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from pipelines.tracking.tags import tag_key
from pipelines.tracking.tracker import LATEST


class Server:
    """An MLflow server on the loopback interface, with its own runs, models and artifacts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start the server, and wait until it answers."""
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
        """Kill all processes of the server at once."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def latest_epoch(self) -> int:
        """Return the epoch of the latest checkpoint of the only run in experiment 1. Reads the server's database."""
        (run,) = mlflow.MlflowClient(f"sqlite:///{self._folder}/server.db").search_runs(["1"])
        return int(run.data.tags.get(tag_key(LATEST), 0))
