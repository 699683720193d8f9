"""Every form of a model's URI is resolved to one version, checked against its registered hash, and written."""

from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from cnnlib.errors import ModelError
from cnnlib.predictions.contract import ScoredWith
from pipelines.tracking.registry import SHA256, fetch_model, pin_version
from pipelines.tracking.store import connect
from pipelines.tracking.tags import earlier_key, tag_key
from tests.spark.conftest import Trained

IS_MLFLOW_3 = int(mlflow.__version__.partition(".")[0]) >= 3


@pytest.fixture(scope="module")
def client(trained: Trained) -> Iterator[MlflowClient]:
    connect(trained.tracking)
    client = MlflowClient()
    with pytest.warns(FutureWarning):
        client.transition_model_version_stage("digits", trained.model.version, "Production")
    yield client
    with pytest.warns(FutureWarning):
        client.transition_model_version_stage("digits", trained.model.version, "None")


def forms(trained: Trained) -> list[str]:
    version = trained.model.version
    every = [
        f"models:/digits/{version}",
        "models:/digits@champion",
        "models:/digits/latest",
        "models:/digits/Production",
        "models:/digits/production",
        f"runs:/{trained.model.run_id}/model",
    ]
    return [*every, trained.model.model_uri] if IS_MLFLOW_3 else every


def test_every_form_is_the_same_version(trained: Trained, client: MlflowClient, tmp_path: Path) -> None:
    registered = client.get_model_version("digits", trained.model.version).tags[tag_key(SHA256)]
    for number, uri in enumerate(forms(trained)):
        fetched = fetch_model(uri, tmp_path / str(number))
        assert fetched.scored_with == ScoredWith("digits", trained.model.version, registered), uri


@pytest.mark.parametrize("key", [tag_key, earlier_key])
def test_hash_is_checked_in_every_form(
    trained: Trained, client: MlflowClient, tmp_path: Path, key: Callable[[str], str]
) -> None:
    registered = client.get_model_version("digits", trained.model.version).tags[tag_key(SHA256)]
    client.delete_model_version_tag("digits", trained.model.version, tag_key(SHA256))
    client.set_model_version_tag("digits", trained.model.version, key(SHA256), "0" * 64)
    try:
        for number, uri in enumerate(forms(trained)):
            with pytest.raises(ModelError, match=f"but {'0' * 64} was registered"):
                fetch_model(uri, tmp_path / str(number))
    finally:
        client.delete_model_version_tag("digits", trained.model.version, key(SHA256))
        client.set_model_version_tag("digits", trained.model.version, tag_key(SHA256), registered)


def test_moving_forms_are_pinned(trained: Trained, client: MlflowClient) -> None:
    for uri in ("models:/digits@champion", "models:/digits/latest", "models:/digits/Production"):
        assert pin_version(uri) == f"models:/digits/{trained.model.version}"


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("digits", r"did you mean models:/digits@champion\?; name a model as models:/NAME@ALIAS"),
        ("digits@challenger", r"did you mean models:/digits@challenger\?"),
        ("digits/3", r"did you mean models:/digits/3\?"),
        ("models:/digits", "is no model URI; name a model as"),
        ("./model", "is no model URI; name a model as"),
        ("s3://bucket/model", "is no model URI; name a model as"),
        ("models:/digits/Staging", "digits has no version in the stage Staging; name a version, or an alias"),
        ("models:/nobody/latest", "nobody has no version"),
        ("models:/m-00000000000000000000000000000000", "cannot be read from"),
        ("runs:/00000000000000000000000000000000/model", "cannot be read from"),
    ],
)
def test_other_uris_are_refused_with_the_forms(
    trained: Trained, client: MlflowClient, tmp_path: Path, uri: str, says: str
) -> None:
    with pytest.raises(ModelError, match=says) as refused:
        fetch_model(uri, tmp_path)
    assert "\n" not in refused.value.message
