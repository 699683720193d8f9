"""Uploads in the background are in order, a checkpoint is the latest only after its upload, and failures are raised."""

import threading
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from cnnlib.config import TrackingSettings
from cnnlib.errors import TrackingError
from pipelines.tracking.publisher import Publisher
from pipelines.tracking.store import connect
from pipelines.tracking.tracker import ARTIFACTS_FOLDER, Tracker

TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, new_store: Callable[[Path], str]) -> str:
    """Return the URI of a new SQLite store."""
    return connect(TrackingSettings(uri=new_store(tmp_path_factory.mktemp("store"))))


@pytest.fixture
def tracker(store: str, tmp_path: Path) -> Tracker:
    """Start a run with its artifacts below the test's folder."""
    client = mlflow.MlflowClient(store)
    experiment = client.create_experiment(tmp_path.name, (tmp_path / ARTIFACTS_FOLDER).as_uri())
    return Tracker(client.create_run(experiment).info.run_id, experiment, store)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Return the folder with the checkpoints that training wrote."""
    return tmp_path / "written"


def checkpoint(written: Path, epoch: int) -> Path:
    folder = written / f"epoch-{epoch:04d}"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(str(epoch))
    return folder


def uploaded(tmp_path: Path) -> dict[str, str]:
    """Return the content of each checkpoint in the run, by its name."""
    return {path.parent.name: path.read_text() for path in sorted((tmp_path / ARTIFACTS_FOLDER).rglob("state.json"))}


def block(tracker: Tracker, tmp_path: Path, epoch: int) -> None:
    """Let the upload of an epoch fail: a file has the name of its folder."""
    folder = tmp_path / ARTIFACTS_FOLDER / tracker.run_id / "artifacts" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"epoch-{epoch:04d}").write_text("in the way")


def logged_losses(tracker: Tracker) -> list[tuple[int, float]]:
    history = mlflow.MlflowClient(tracker.uri).get_metric_history(tracker.run_id, "loss")
    return [(value.step, value.value) for value in history]


def test_checkpoint_is_latest_only_after_its_upload(tracker: Tracker, written: Path, tmp_path: Path) -> None:
    tracker.log_checkpoint(1, checkpoint(written, 1))
    assert tracker.latest_epoch() == 1
    block(tracker, tmp_path, 2)
    with pytest.raises(TrackingError, match="cannot be written: .*epoch-0002"):
        tracker.log_checkpoint(2, checkpoint(written, 2))
    assert tracker.latest_epoch() == 1
    assert (tracker.fetch_checkpoint(1, tmp_path / "fetched") / "state.json").read_text() == "1"


def test_run_gets_all_epochs_and_disk_keeps_last(tracker: Tracker, written: Path, tmp_path: Path) -> None:
    with Publisher(tracker, written, keep_last=2) as publisher:
        for epoch in range(1, 6):
            publisher.publish(epoch, checkpoint(written, epoch), {"loss": 1 / epoch})
    assert sorted(path.name for path in written.iterdir()) == ["epoch-0004", "epoch-0005"]
    assert uploaded(tmp_path) == {f"epoch-{epoch:04d}": str(epoch) for epoch in range(1, 6)}
    assert tracker.latest_epoch() == 5
    assert logged_losses(tracker) == [(epoch, 1 / epoch) for epoch in range(1, 6)]


def test_failed_upload_ends_training_and_loses_no_checkpoint(tracker: Tracker, written: Path, tmp_path: Path) -> None:
    block(tracker, tmp_path, 3)

    def train() -> None:
        with Publisher(tracker, written, keep_last=1) as publisher:
            for epoch in (1, 2, 3, 4):
                publisher.publish(epoch, checkpoint(written, epoch), {"loss": 1 / epoch})

    advice = f"repair the store, then continue with --train.resume {tracker.run_id}"
    with pytest.raises(TrackingError, match=f"{tracker.uri} did not accept a checkpoint .*; {advice}"):
        train()
    # The disk still has the checkpoints that the run lacks.
    assert sorted(path.name for path in written.iterdir()) == ["epoch-0002", "epoch-0003", "epoch-0004"]
    assert tracker.latest_epoch() == 2
    assert logged_losses(tracker) == [(1, 1.0), (2, 0.5)]


def test_next_epoch_raises_after_mlflow_gave_up(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # By default MLflow would try for four minutes. Port 9 is the discard service, which this machine does not offer.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    publisher = Publisher(Tracker("a-run", "0", "http://127.0.0.1:9"), written, keep_last=1)

    def train() -> None:
        with publisher:
            publisher.publish(1, checkpoint(written, 1), {})
            (worker,) = (thread for thread in threading.enumerate() if thread.name == "sparkcnn-publisher")
            worker.join(TIMEOUT_S)
            publisher.publish(2, checkpoint(written, 2), {})
            pytest.fail("an epoch was taken that nobody will publish")

    with pytest.raises(TrackingError, match=r"127\.0\.0\.1:9 did not accept a checkpoint .*--train\.resume a-run"):
        train()
