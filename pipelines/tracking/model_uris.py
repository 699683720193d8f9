"""Model URIs in every form that MLflow has: which registered version, or which logged model, a URI names now.

A form that moves (an alias, a stage, latest) is resolved once, so that a job scores with one version, checks the hash
that was registered with it, and writes its number into every row.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from cnnlib.errors import ModelError
from cnnlib.sealed.starting_weights import REGISTERED

LATEST = "latest"
_STAGES = ("production", "staging", "archived", "none")
# MLflow takes the part behind the last slash for a version, a stage or latest, and m-… for the id of a logged model.
_VERSION = re.compile(rf"{REGISTERED}/*(?P<name>[^/@]+)/(?P<version>\d+)/?")
_ALIAS = re.compile(rf"{REGISTERED}/*(?P<name>[^/@]+)@(?P<alias>[^/@]+)/?")
_MOVING = re.compile(rf"{REGISTERED}/*(?P<name>[^/@]+)/(?P<which>{LATEST}|{'|'.join(_STAGES)})/?", re.IGNORECASE)
_LOGGED = re.compile(rf"{REGISTERED}/*(?P<id>m-[0-9a-f]+)/?")
_OF_RUN = re.compile(r"runs:/+(?P<run>[^/]+)/(?P<path>.+?)/?")
FORMS = (
    f"{REGISTERED}NAME@ALIAS, {REGISTERED}NAME/VERSION, {REGISTERED}NAME/{LATEST}, {REGISTERED}NAME/STAGE, "
    f"{REGISTERED}m-ID or runs:/RUN_ID/model"
)


@dataclass(frozen=True)
class ModelVersion:
    """A version of a registered model, its tags, and the id of the run that made it (None if no run did)."""

    name: str
    version: str
    run_id: str | None
    tags: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.name} version {self.version}"

    @property
    def uri(self) -> str:
        """The model URI models:/NAME/VERSION."""
        return f"{REGISTERED}{self.name}/{self.version}"


@dataclass(frozen=True)
class LoggedModel:
    """A model that a run logged, and that nobody registered; `uri` has its id, or its run's."""

    uri: str


def resolve(uri: str) -> ModelVersion | LoggedModel:
    """Ask the registry what a URI names now.

    A logged model that somebody has registered is its newest registered version. Raises ModelError for a URI of no
    known form, and MlflowException if there is no such model, version, alias or run.
    """
    client = mlflow.MlflowClient()
    if match := _VERSION.fullmatch(uri):
        return _version(client.get_model_version(match["name"], match["version"]))
    if match := _ALIAS.fullmatch(uri):
        return _version(client.get_model_version_by_alias(match["name"], match["alias"]))
    if match := _MOVING.fullmatch(uri):
        return _newest_in_stage(match["name"], match["which"])
    if (match := _LOGGED.fullmatch(uri)) and hasattr(client, "get_logged_model"):  # MLflow 2 has none
        return _registered_or_logged(client.get_logged_model(match["id"]))
    if match := _OF_RUN.fullmatch(uri):
        return _of_run(match["run"], match["path"])
    raise ModelError(f"model={uri} is no model URI{_meant(uri)}; name a model as {FORMS}")


def names_one_version(uri: str) -> bool:
    """Return whether a URI always names the same model, without asking the registry.

    >>> [names_one_version(uri) for uri in ("models:/photos/3", "models:/photos@champion", "models:/photos/latest")]
    [True, False, False]
    """
    return not (_ALIAS.fullmatch(uri) or _MOVING.fullmatch(uri))


def _meant(uri: str) -> str:
    """Say what a bare name was probably meant to be.

    >>> _meant("photos"), _meant("photos@challenger"), _meant("photos/3"), _meant("s3://bucket/model")
    ('; did you mean models:/photos@champion?', '; did you mean models:/photos@challenger?', '; did you mean \
models:/photos/3?', '')
    """
    if not re.fullmatch(r"[\w.-]+(@[\w-]+|/\d+)?", uri) or uri.startswith("."):
        return ""
    return f"; did you mean {REGISTERED}{uri if '@' in uri or '/' in uri else f'{uri}@champion'}?"


def _version(found: Any) -> ModelVersion:
    # Unity Catalog gives the version as a number, other registries as text.
    return ModelVersion(found.name, str(found.version), found.run_id or None, dict(found.tags or {}))


def _newest(versions: Iterable[Any]) -> Any | None:
    return max(versions, key=lambda one: int(one.version), default=None)


def _newest_in_stage(name: str, which: str) -> ModelVersion:
    client = mlflow.MlflowClient()
    versions = list(client.search_model_versions(f"name='{name}'"))
    if which.lower() != LATEST:
        versions = [one for one in versions if (one.current_stage or "none").lower() == which.lower()]
    newest = _newest(versions)
    if newest is None:
        what = "version" if which.lower() == LATEST else f"version in the stage {which}"
        raise ModelError(f"model={REGISTERED}{name}/{which}: {name} has no {what}; name a version, or an alias")
    # A search may leave tags out.
    return _version(client.get_model_version(name, str(newest.version)))


def _of_run(run_id: str, path: str) -> ModelVersion | LoggedModel:
    client = mlflow.MlflowClient()
    run = client.get_run(run_id)
    # MLflow 3 keeps models beside runs, MLflow 2 among the artifacts of the run.
    outputs = getattr(getattr(run, "outputs", None), "model_outputs", None) or []
    logged = [client.get_logged_model(output.model_id) for output in outputs]
    named = [model for model in logged if model.name == path]
    if named:
        return _registered_or_logged(max(named, key=lambda model: model.creation_timestamp))
    uri = f"runs:/{run_id}/{path}"
    versions = client.search_model_versions(f"run_id='{run_id}'")
    of_path = [one for one in versions if (one.source or "").rstrip("/").endswith(f"{run_id}/artifacts/{path}")]
    newest = _newest(of_path)
    return LoggedModel(uri) if newest is None else _version(client.get_model_version(newest.name, str(newest.version)))


def _registered_or_logged(model: Any) -> ModelVersion | LoggedModel:
    client = mlflow.MlflowClient()
    try:
        versions = list(client.search_model_versions(f"run_id='{model.source_run_id}'"))
    except MlflowException:
        # Unity Catalog searches by name only.
        versions = []
    # MLflow gives the id, or only the source, models:/m-ID.
    newest = _newest(
        one
        for one in versions
        if model.model_id in (getattr(one, "model_id", None), (one.source or "").rstrip("/").rpartition("/")[2])
    )
    if newest is None:
        return LoggedModel(f"{REGISTERED}{model.model_id}")
    return _version(client.get_model_version(newest.name, str(newest.version)))
