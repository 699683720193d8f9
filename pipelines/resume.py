"""Which MLflow run a training writes to: a new one, or one that was interrupted and is of the same settings."""

from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import Run, RunStatus, ViewType
from mlflow.exceptions import MlflowException

from cnnlib.errors import ConfigError, first_line

FINGERPRINT_TAG = "sparkcnn.fingerprint"
AUTO = "auto"
# Settings that say how to go on, or where the store is, not what is trained.
FREE = frozenset({"train.resume", "train.max_restarts", "train.keep_last", "tracking.uri"})


def run_to_resume(resume: str, experiment_id: str, settings: Mapping[str, object], fingerprint: str) -> str | None:
    """The id of the run to go on with: the one named, or for "auto" the newest unfinished one that fits, if any.

    `settings` are flat, as logged. Raises ConfigError for a run that is not there, is finished, or has other settings
    or another image set; the message names what differs.
    """
    client = MlflowClient()
    if resume == AUTO:
        runs = client.search_runs(
            [experiment_id], run_view_type=ViewType.ACTIVE_ONLY, order_by=["attributes.start_time DESC"]
        )
        fitting = (run for run in runs if _is_unfinished(run) and not _differences(run, settings, fingerprint))
        return next((run.info.run_id for run in fitting), None)
    try:
        run = client.get_run(resume)
    except MlflowException as error:
        raise ConfigError(f"train.resume={resume} is no run of this store: {first_line(error)}") from error
    if not _is_unfinished(run):
        raise ConfigError(f"train.resume={resume} is finished already; train anew without train.resume")
    differences = _differences(run, settings, fingerprint)
    if differences:
        raise ConfigError(
            f"train.resume={resume} was started otherwise: {'; '.join(differences)}; give the same, or train anew"
        )
    return resume


def _is_unfinished(run: Run) -> bool:
    return run.info.status != RunStatus.to_string(RunStatus.FINISHED)


def _differences(run: Run, settings: Mapping[str, object], fingerprint: str) -> list[str]:
    logged = run.data.params
    names = sorted((logged.keys() | settings.keys()) - FREE)
    found = [
        f"{name} was {logged.get(name, 'not set')}, received {settings.get(name, 'nothing')}"
        for name in names
        if logged.get(name) != str(settings.get(name))
    ]
    if run.data.tags.get(FINGERPRINT_TAG) != fingerprint:
        found.append(
            f"the image set's fingerprint was {run.data.tags.get(FINGERPRINT_TAG, 'not set')}, received {fingerprint}"
        )
    return found
