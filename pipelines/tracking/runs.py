"""Start MLflow runs, continue them, end them, and read earlier ones."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run, RunStatus
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from cnnlib.config import StoreSettings
from cnnlib.errors import ConfigError, TrackingError, first_line
from cnnlib.image_set.contract import ImageSet
from pipelines.tracking.own_run import own_run
from pipelines.tracking.resume import AUTO, LoggedRun, check_resumable, newest_fitting
from pipelines.tracking.store import SQLITE, as_tracking_error, quieten, reach_store, sqlite_file
from pipelines.tracking.tags import earlier_key, read_tag, tag_key
from pipelines.tracking.tracker import ARTIFACTS_FOLDER, FINGERPRINT, MODEL, Tracker, log_input

# Tag of a nested run whose job was killed. A study runs its trial again.
LOST = "lost"
# MLflow's default number of runs in one answer.
RUNS_A_PAGE = 1000


@dataclass(frozen=True)
class PastRun:
    """The parameters of a run, and the values of one metric, one per epoch."""

    params: dict[str, str]
    values: list[float]


def read_run(settings: StoreSettings, run_id: str, metric: str) -> PastRun:
    """Read a run. Raises TrackingError if the store does not answer, ConfigError if it has no such run."""
    uri = reach_store(settings)
    if uri.startswith(SQLITE) and not sqlite_file(uri).exists():
        raise ConfigError(f"run={run_id} cannot be read: {uri} does not exist; name its store with tracking.uri")
    quieten()
    client = MlflowClient(uri)
    try:
        params = client.get_run(run_id).data.params
        return PastRun(params, [value.value for value in client.get_metric_history(run_id, metric)])
    except MlflowException as error:
        raise ConfigError(f"run={run_id} is not a run of {uri}: {first_line(error)}") from error


def image_set_of(run_id: str) -> str | None:
    """Return the location of the image set that a run of the connected store trained on, or None if it has none."""
    try:
        inputs = MlflowClient().get_run(run_id).inputs
    except MlflowException:
        return None
    sources = [json.loads(one.dataset.source) for one in (inputs.dataset_inputs if inputs else ())]
    # MLflow calls it uri or url, depending on the kind of storage.
    return next((source.get("uri") or source.get("url") for source in sources), None)


@contextmanager
def tracked_run(
    uri: str,
    experiment: str,
    name: str,
    resume: str | None,
    settings: Mapping[str, Any],
    image_set: ImageSet,
    *,
    job: str = "train",
    create: Callable[[str, str], str] | None = None,
) -> Iterator[Tracker]:
    """Start a run in an experiment of the connected store, or continue one, for the body.

    A new run gets the name, the settings and the image set. `resume` is None, a run id or "auto", as in
    `TrainSettings`; `job` names the job that it belongs to. `create` makes the new run if MLflow's own way does not
    fit: (experiment id, name) -> run id.

    When the body ends, the run is marked as finished, failed, or killed (after an interrupt).

    Raises TrackingError if the store cannot be opened, ConfigError for a run that cannot be resumed.
    """
    _refuse_active_run()
    with own_run(experiment):
        with as_tracking_error(uri):
            experiment_id = _experiment_id(uri, experiment)
            resumed = _run_to_resume(resume, experiment_id, settings, image_set.fingerprint, job) if resume else None
            if resumed:
                run = mlflow.start_run(run_id=resumed)
            elif create:
                run = mlflow.start_run(run_id=create(experiment_id, name))
            else:
                run = mlflow.start_run(experiment_id=experiment_id, run_name=name)
        with _ended_with_its_body(run, uri) as tracker:
            if resumed is None:
                with as_tracking_error(uri):
                    tracker.log_settings(settings)
                    tracker.log_image_set(image_set)
            yield tracker


@contextmanager
def nested_run(parent: Tracker, name: str, settings: Mapping[str, Any], image_set: ImageSet) -> Iterator[Tracker]:
    """Start a run below the parent's run, which is active, for the body. It ends as that of `tracked_run` does."""
    with as_tracking_error(parent.uri):
        run = mlflow.start_run(experiment_id=parent.experiment_id, run_name=name, nested=True)
    with _ended_with_its_body(run, parent.uri) as tracker:
        with as_tracking_error(parent.uri):
            tracker.log_settings(settings)
            tracker.set_tag(FINGERPRINT, value=image_set.fingerprint)
        yield tracker


@dataclass(frozen=True)
class NestedRun:
    """A run below another one: its status in MLflow's words, and the last value of each metric."""

    run_id: str
    name: str
    status: str
    seconds: float
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    logged: LoggedRun


def nested_runs(parent: Tracker) -> list[NestedRun]:
    """Return the runs below a run, in the order of their start."""
    below = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent.run_id}'"
    runs = _search_runs(MlflowClient(parent.uri), parent.experiment_id, below, "attributes.start_time ASC")
    return [
        NestedRun(
            run.info.run_id,
            run.info.run_name or run.info.run_id,
            run.info.status,
            ((run.info.end_time or run.info.start_time) - run.info.start_time) / 1000,
            run.data.tags,
            run.data.metrics,
            _as_logged_run(run),
        )
        for run in runs
    ]


def end_lost_runs(parent: Tracker) -> list[str]:
    """Mark the runs below a run that a killed job left RUNNING as failed, and return their ids."""
    client = MlflowClient(parent.uri)
    lost = [run.run_id for run in nested_runs(parent) if run.status == "RUNNING"]
    for run_id in lost:
        client.set_tag(run_id, tag_key(LOST), "the job that it belonged to was ended")
        client.set_terminated(run_id, "FAILED")
    return lost


def read_history(uri: str, run_id: str, metrics: Iterable[str]) -> dict[str, list[float]]:
    """Return the values of each metric, one per epoch. Metrics that the run does not have are left out."""
    client = MlflowClient(uri)
    values = {name: client.get_metric_history(run_id, name) for name in metrics}
    return {
        name: [value.value for value in sorted(found, key=lambda value: value.step)]
        for name, found in values.items()
        if found
    }


@contextmanager
def model_run(
    uri: str,
    experiment: str,
    name: str,
    settings: Mapping[str, Any],
    model: Mapping[str, str | None],
    source: tuple[str, str] | None,
    purpose: Literal["scoring", "evaluation"],
) -> Iterator[Tracker]:
    """Start a run for the scoring or evaluation of a model, for the body.

    The run gets the settings, a tag for each item of `model` (name, version, sha256) that is not None, and as its input
    the `source`, if any: its location, and a digest that changes when its content changes. Raises TrackingError if the
    store cannot be opened.
    """
    _refuse_active_run()
    with own_run(experiment):
        with as_tracking_error(uri):
            run = mlflow.start_run(experiment_id=_experiment_id(uri, experiment), run_name=name)
        with _ended_with_its_body(run, uri) as tracker:
            with as_tracking_error(uri):
                tracker.log_settings(settings)
                for key, value in model.items():
                    if value is not None:
                        tracker.set_tag(MODEL, key, value=value)
                if source is not None:
                    log_input(*source, purpose)
            yield tracker


def _refuse_active_run() -> None:
    active = mlflow.active_run()
    if active is not None:
        raise TrackingError(f"the MLflow run {active.info.run_id} is already active; end it with mlflow.end_run()")


@contextmanager
def _ended_with_its_body(run: mlflow.ActiveRun, uri: str) -> Iterator[Tracker]:
    """End the run as finished, failed, or killed (by an interrupt). Raises TrackingError if it cannot be ended."""
    status = "FAILED"
    try:
        yield Tracker(run.info.run_id, run.info.experiment_id, uri)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        try:
            mlflow.end_run(status)
        except MlflowException as error:
            # If the body failed, its own error says more.
            if status == "FINISHED":
                raise TrackingError(
                    f"the job is done, but tracking.uri={uri} did not record the end of run {run.info.run_id}: "
                    f"{first_line(error)}"
                ) from error


def _run_to_resume(
    resume: str, experiment_id: str, settings: Mapping[str, Any], fingerprint: str, job: str
) -> str | None:
    """Return the id of the run to resume: the one that is named, or for "auto" the newest that fits, or None."""
    client = MlflowClient()
    if resume == AUTO:
        runs = _runs_of_images(client, experiment_id, fingerprint)
        # A nested run may have the same settings, but it is one training of a comparison and is resumed with that.
        top_level = (run for run in runs if MLFLOW_PARENT_RUN_ID not in run.data.tags)
        return newest_fitting(map(_as_logged_run, top_level), settings, fingerprint)
    try:
        run = client.get_run(resume)
    except MlflowException as error:
        raise ConfigError(f"{job}.resume={resume} is not a run of this store: {first_line(error)}") from error
    check_resumable(_as_logged_run(run), settings, fingerprint, job)
    return resume


def _runs_of_images(client: MlflowClient, experiment_id: str, fingerprint: str) -> Iterator[Run]:
    """Give all runs on images of this fingerprint, the newest first. Those of earlier states come last."""
    for key in (tag_key(FINGERPRINT), earlier_key(FINGERPRINT)):
        yield from _search_runs(client, experiment_id, f"tags.`{key}` = '{fingerprint}'", "attributes.start_time DESC")


def _search_runs(client: MlflowClient, experiment_id: str, filter_string: str, order: str) -> Iterator[Run]:
    """Give all matching runs of an experiment, page after page."""
    page = None
    while page is None or page.token:
        page = client.search_runs(
            [experiment_id],
            filter_string,
            max_results=RUNS_A_PAGE,
            order_by=[order],
            page_token=page.token if page else None,
        )
        yield from page


def _as_logged_run(run: Run) -> LoggedRun:
    finished = run.info.status == RunStatus.to_string(RunStatus.FINISHED)
    return LoggedRun(run.info.run_id, finished, run.data.params, read_tag(run.data.tags, FINGERPRINT))


def _experiment_id(uri: str, name: str) -> str:
    """Return the id of an experiment, and create it if there is none of this name."""
    experiment = mlflow.get_experiment_by_name(name)
    if experiment is not None:
        return experiment.experiment_id
    location = None
    if uri.startswith(SQLITE):
        # Keep the artifacts beside the store, not at MLflow's default location: the two belong together.
        location = sqlite_file(uri).with_name(ARTIFACTS_FOLDER).as_uri()
    try:
        return mlflow.create_experiment(name, artifact_location=location)
    except MlflowException:
        # Another job may have created it since.
        experiment = mlflow.get_experiment_by_name(name)
        if experiment is None:
            raise
        return experiment.experiment_id
