"""An MLflow run that is under way: settings, metrics and a checkpoint of every epoch, or what a scoring found."""

import json
import math
import shlex
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import mlflow
import requests
import tenacity
from mlflow import MlflowClient
from mlflow.data.dataset_source_registry import resolve_dataset_source
from mlflow.data.http_dataset_source import HTTPDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.utils.file_utils import local_file_uri_to_path

from cnnlib.errors import TrackingError, first_line
from cnnlib.image_set.contract import ImageSet
from cnnlib.predictions.contract import Predictions
from cnnlib.storage.folder import REPORT
from pipelines.tracking.store import SQLITE, is_server, sqlite_file

ARTIFACTS_FOLDER = "mlartifacts"
CHECKPOINTS = "checkpoints"
IMAGE_SET = "image_set"
EVALUATION = "evaluation"

# MLflow keeps at most 36 characters of a data set's digest; the whole fingerprint is a tag of the run.
DIGEST_CHARACTERS = 36
FINGERPRINT_TAG = "sparkcnn.fingerprint"
IMAGES_TAG = "sparkcnn.images"
BEST_EPOCH_TAG = "sparkcnn.best_epoch"
BEST_TRIAL_TAG = "sparkcnn.best_trial"
LATEST_TAG = "sparkcnn.latest_checkpoint"
PROGRESS_TAG = "sparkcnn.progress"
RATE_SWEEP = "learning_rate"
WARNINGS_TAG = "sparkcnn.warnings"
MODEL_TAG = "sparkcnn.model"
PREDICTIONS_TAG = "sparkcnn.predictions"

UI_PORT = 5000


def _is_cut_short(error: BaseException | None) -> bool:
    """Whether the server's answer ended half-way."""
    while error is not None and not isinstance(error, requests.exceptions.ChunkedEncodingError):
        error = error.__cause__ or error.__context__
    return error is not None


# MLflow tries a call again until the head of an answer has come, and gives up where the rest of it is cut off, as by a
# server that ends in the middle of it. Whether that server did what it was asked is not known: only what may be done
# twice is called so.
_again_where_cut_short = tenacity.retry(
    retry=tenacity.retry_if_exception(_is_cut_short),
    wait=tenacity.wait_fixed(1),
    stop=tenacity.stop_after_attempt(5),
    reraise=True,
)


@dataclass(frozen=True)
class Tracker:
    """An MLflow run that is under way; usable from any process that reaches the store."""

    run_id: str
    experiment_id: str
    uri: str

    @property
    def _client(self) -> MlflowClient:
        return MlflowClient(self.uri)

    def log_settings(self, settings: Mapping[str, Any]) -> None:
        """Log every resolved setting as a parameter, under its dotted name."""
        self._log(params=[Param(name, str(value)) for name, value in settings.items()])

    def log_image_set(self, image_set: ImageSet) -> None:
        """Name the image set that the active run trains on, by its place and its fingerprint, and keep its report."""
        log_input(image_set.folder.uri, image_set.fingerprint, "training")
        self.set_tag(FINGERPRINT_TAG, image_set.fingerprint)
        for name, count in vars(image_set.counts).items():
            self.set_tag(f"{IMAGES_TAG}.{name}", str(count))
        report = image_set.folder.path(REPORT)
        if image_set.folder.fs.exists(report):
            with TemporaryDirectory(prefix="sparkcnn-report-") as temporary:
                image_set.folder.fs.get_file(report, f"{temporary}/{REPORT}")
                self._upload(Path(temporary), IMAGE_SET)

    def log_scoring(self, predictions: Predictions) -> None:
        """Log what became of a scoring's rows. Raises TrackingError where the store fails; they are published then."""
        speed = {"images_per_second": predictions.images_per_second}
        by_code = {f"failed_{code}": count for code, count in predictions.failed_by_code.items()}
        moved = {} if predictions.stability is None else predictions.stability.as_dict()
        indices = {f"stability_{name}": index for name, index in moved.items() if index is not None}
        metrics = speed | predictions.counts | by_code | indices
        now = int(time.time() * 1000)
        try:
            self._log(metrics=[Metric(name, value, now, 0) for name, value in metrics.items()])
            self.set_tag(PREDICTIONS_TAG, predictions.path)
        except MlflowException as error:
            raise TrackingError(
                f"the predictions are published at {predictions.path}, but tracking.uri={self.uri} did not take the "
                f"counts: {first_line(error)}"
            ) from error

    def log_evaluation(self, metrics: Mapping[str, float], folder: Path) -> None:
        """Log what an evaluation found, and keep its files under evaluation/."""
        now = int(time.time() * 1000)
        # A store takes no number that is none: the loss of a model that could read no image.
        self._log(metrics=[Metric(name, value, now, 0) for name, value in metrics.items() if math.isfinite(value)])
        self._upload(folder, EVALUATION)

    def log_files(self, folder: Path) -> None:
        """Keep the files of a folder as artifacts of the run."""
        self._upload(folder, None)

    def place_of(self, artifact: str) -> str:
        """Where people find an artifact of the run: a path on this machine, or a page of the MLflow UI."""
        uri = self._client.get_run(self.run_id).info.artifact_uri
        if urlsplit(uri).scheme in ("", "file"):
            return f"{local_file_uri_to_path(uri)}/{artifact}"
        return f"{self.run_url}/artifacts/{artifact}"

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Log an epoch's metrics; `epoch` counts from 1 and is MLflow's step."""
        now = int(time.time() * 1000)
        self._log(metrics=[Metric(name, value, now, epoch) for name, value in metrics.items()])

    @_again_where_cut_short
    def _log(self, metrics: Sequence[Metric] = (), params: Sequence[Param] = ()) -> None:
        """Log both; a store keeps what it is given twice once."""
        self._client.log_batch(self.run_id, metrics, params)

    def log_checkpoint(self, epoch: int, folder: Path) -> None:
        """Upload a checkpoint folder as checkpoints/epoch-0001, and only then call it the latest."""
        self._upload(folder, f"{CHECKPOINTS}/{folder.name}")
        self.set_tag(LATEST_TAG, str(epoch))

    @_again_where_cut_short
    def _upload(self, folder: Path, place: str | None) -> None:
        """Upload a folder's files; those that the run has already are replaced."""
        self._client.log_artifacts(self.run_id, str(folder), place)

    def log_best(self, epoch: int, metric: str, value: float) -> None:
        """Log which epoch is the best one, and its value, by which runs can be sorted."""
        self.set_tag(BEST_EPOCH_TAG, str(epoch))
        self._log(metrics=[Metric(f"best_{metric}", value, int(time.time() * 1000), 0)])

    def log_rate_sweep(self, folder: Path) -> None:
        """Keep the files of a sweep of the learning rate, under learning_rate/."""
        self._upload(folder, RATE_SWEEP)

    @_again_where_cut_short
    def fetch_rate_sweep(self, file: str, folder: Path) -> Path:
        """Download one of them into a folder, and give where it lies."""
        return Path(self._client.download_artifacts(self.run_id, f"{RATE_SWEEP}/{file}", str(folder)))

    def log_warnings(self, warnings: Sequence[str]) -> None:
        """Keep what a training warned of at its end, if anything."""
        if warnings:
            self.set_tag(WARNINGS_TAG, "\n".join(warnings))

    def log_best_trial(self, number: int, metric: str, value: float) -> None:
        """Log which trial of a study is the best one, and its value, by which studies can be sorted."""
        self.set_tag(BEST_TRIAL_TAG, str(number))
        self._log(metrics=[Metric(f"best_{metric}", value, int(time.time() * 1000), 0)])

    @_again_where_cut_short
    def set_tag(self, name: str, value: str) -> None:
        """Set a tag of the run."""
        self._client.set_tag(self.run_id, name, value)

    @_again_where_cut_short
    def tag(self, name: str) -> str | None:
        """A tag of the run as the store has it now, None where it is not set."""
        return self._client.get_run(self.run_id).data.tags.get(name)

    def progress(self) -> dict[str, Any] | None:
        """How far training is, as its rank 0 last told: empty where it did not yet, None while the store is away."""
        try:
            return json.loads(self.tag(PROGRESS_TAG) or "{}")
        except MlflowException:
            return None

    def latest_epoch(self) -> int:
        """The epoch (from 1) of the latest checkpoint in the run, 0 without one."""
        return int(self.tag(LATEST_TAG) or 0)

    @_again_where_cut_short
    def logged_epochs(self, metric: str) -> set[int]:
        """The epochs for which the run has a value of a metric."""
        return {value.step for value in self._client.get_metric_history(self.run_id, metric)}

    @_again_where_cut_short
    def fetch_checkpoint(self, epoch: int, folder: Path) -> Path:
        """Download the checkpoint of an epoch into a folder, and give where it lies."""
        # Not above: it imports Keras, and doctor examines a store where that may be broken.
        from cnnlib.training.checkpoints import checkpoint_folder

        name = checkpoint_folder(Path(CHECKPOINTS), epoch).as_posix()
        folder.mkdir(parents=True, exist_ok=True)  # MLflow 2 does not
        return Path(self._client.download_artifacts(self.run_id, name, str(folder)))

    @property
    def ui_command(self) -> str | None:
        """What to type in the working folder to serve the MLflow UI; None where a server does already."""
        if not self.uri.startswith(SQLITE):
            return None
        mlflow_command = _short(Path(sys.executable).with_name("mlflow"))
        store = f"{SQLITE}{_short(sqlite_file(self.uri))}"
        return shlex.join([str(mlflow_command), "ui", "--backend-store-uri", store, "--port", str(UI_PORT)])

    @property
    def run_url(self) -> str:
        """The address of this run's page in the MLflow UI; its id where no address is known."""
        if self.uri.startswith(SQLITE) or is_server(self.uri):
            server = self.uri.rstrip("/") if is_server(self.uri) else f"http://127.0.0.1:{UI_PORT}"
            return f"{server}/#/experiments/{self.experiment_id}/runs/{self.run_id}"
        return self.run_id


@contextmanager
def as_tracking_error(uri: str, advice: str = "") -> Iterator[None]:
    """Say in one line what a store answered to the body, and what to do about it."""
    try:
        yield
    except MlflowException as error:
        raise TrackingError(f"tracking.uri={uri} cannot be used: {first_line(error)}{advice}") from error


def log_input(uri: str, digest: str, context: str) -> None:
    """Name what the active run reads, by its place and what changes when it does."""
    with warnings.catch_warnings():
        # MLflow knows a local folder under two names of one class, and warns of the choice.
        warnings.simplefilter("ignore", UserWarning)
        try:
            source = resolve_dataset_source(uri)
        except MlflowException:
            # MLflow has no kind of its own for s3a:, dbfs: and others; this one takes any URI.
            source = HTTPDatasetSource(uri)
    name = uri.rstrip("/").rsplit("/", 1)[-1]
    dataset = MetaDataset(source, name=name, digest=digest[:DIGEST_CHARACTERS])  # type: ignore[abstract]
    mlflow.log_input(dataset, context=context)


def _short(path: Path) -> Path:
    """The path as one would type it in the working folder."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
