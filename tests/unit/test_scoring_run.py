"""The MLflow run of a scoring in a real store: its content, and the errors of a store that fails."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from cnnlib.config import TrackingSettings
from cnnlib.errors import LimitError, TrackingError
from cnnlib.predictions.contract import Predictions, ScoredWith
from cnnlib.storage.folder import open_folder
from pipelines.tracking.runs import model_run
from pipelines.tracking.store import connect


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory, new_store: Callable[[Path], str]) -> str:
    return connect(TrackingSettings(uri=new_store(tmp_path_factory.mktemp("store"))))


def started(uri: str, source: str = "/data/photos", version: str | None = "3"):
    model = {"name": "digits", "version": version, "sha256": "a" * 64}
    settings = {"input.path": source}
    return model_run(uri, "scorings", "score with digits", settings, model, (source, digest_of(source)), "scoring")


def digest_of(source: str) -> str:
    # MLflow treats inputs with the same name and digest as one.
    return hashlib.sha256(source.encode()).hexdigest()


def predictions(run_id: str) -> Predictions:
    counts = {"rows": 10, "scored": 9, "failed": 1}
    model = ScoredWith("digits", "3", "a" * 64)
    return Predictions(open_folder("/data/out"), counts, {"truncated": 1}, model, True, 2.0, run_id, ())


@pytest.mark.parametrize("source", ["/data/photos", "s3a://bucket/photos", "dbfs:/photos", "main.photos.new", "mnist"])
def test_run_names_an_input_wherever_it_is(uri, source):
    with started(uri, source) as tracker:
        tracker.log_scoring(predictions(tracker.run_id))
    run = mlflow.MlflowClient(uri).get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    (read,) = run.inputs.dataset_inputs
    assert source.split(":")[-1].lstrip("/") in read.dataset.source
    assert read.dataset.digest == digest_of(source)[:36]
    assert run.data.metrics == {"rows": 10, "scored": 9, "failed": 1, "failed_truncated": 1, "images_per_second": 5}
    assert run.data.params == {"input.path": source}


def test_model_of_a_run_has_no_version(uri):
    with started(uri, version=None) as tracker:
        pass
    tags = mlflow.MlflowClient(uri).get_run(tracker.run_id).data.tags
    assert {name for name in tags if name.startswith("sparkcnn_")} == {"sparkcnn_model_name", "sparkcnn_model_sha256"}


@pytest.mark.parametrize(("error", "status"), [(LimitError("too many"), "FAILED"), (KeyboardInterrupt(), "KILLED")])
def test_run_ends_as_its_body_did(uri, error, status):
    with pytest.raises(type(error)), started(uri) as tracker:
        raise error
    assert mlflow.MlflowClient(uri).get_run(tracker.run_id).info.status == status
    assert mlflow.active_run() is None


@pytest.fixture
def end_fails(monkeypatch: pytest.MonkeyPatch):
    whole = mlflow.end_run

    def end_run(status: str) -> None:
        whole(status)
        raise MlflowException("API request failed\nwith a long story")

    monkeypatch.setattr(mlflow, "end_run", end_run)


def test_store_lost_at_the_end_is_one_line(uri, end_fails):
    with (
        pytest.raises(TrackingError, match="^the job is done, but .* did not record the end of run .*failed$"),
        started(uri),
    ):
        pass


def test_error_of_the_body_wins_over_a_lost_store(uri, end_fails):
    with pytest.raises(LimitError, match="too many"), started(uri):
        raise LimitError("too many")


def test_counts_that_the_store_refuses_are_an_error(uri, monkeypatch):
    def log_batch(*_: object) -> None:
        raise MlflowException("no answer")

    def log() -> None:
        with started(uri) as tracker:
            monkeypatch.setattr(mlflow.MlflowClient, "log_batch", log_batch)
            tracker.log_scoring(predictions(tracker.run_id))

    with pytest.raises(TrackingError, match="published at /data/out, but .* did not accept their counts: no answer"):
        log()
