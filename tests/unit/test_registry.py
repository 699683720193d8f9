"""A name, an alias and a model URI lead to the same version of a registered model."""

from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from cnnlib.config import TrackingSettings
from cnnlib.errors import ModelError, PromotionError
from pipelines.tracking.aliases import move_back, version_with
from pipelines.tracking.registry import find_version, pin_version
from pipelines.tracking.store import connect

NAME = "main.photos.digits"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, new_store: Callable[[Path], str]) -> str:
    """Connect to a new store that has two versions of a model; the second one is champion."""
    folder = tmp_path_factory.mktemp("store")
    uri = connect(TrackingSettings(uri=new_store(folder)))
    client = mlflow.MlflowClient(uri)
    client.create_registered_model(NAME)
    for number in ("one", "two"):
        client.create_model_version(NAME, source=str(folder), tags={"made": number})
    client.set_registered_model_alias(NAME, "champion", "2")
    return uri


@pytest.fixture(autouse=True)
def connected(store: str) -> None:
    mlflow.set_tracking_uri(store)


@pytest.mark.parametrize(
    ("wanted", "version", "made"), [("1", "1", "one"), ("2", "2", "two"), ("champion", "2", "two")]
)
def test_version_is_found_by_number_and_by_alias(wanted: str, version: str, made: str) -> None:
    found = find_version(NAME, wanted)
    assert (found.name, found.version, found.run_id, dict(found.tags)) == (NAME, version, None, {"made": made})
    assert (str(found), found.uri) == (f"{NAME} version {version}", f"models:/{NAME}/{version}")


@pytest.mark.parametrize("wanted", ["3", "nobody", ""])
def test_version_that_does_not_exist_is_refused(wanted: str) -> None:
    with pytest.raises(ModelError, match=f"{NAME}.*name a registered"):
        find_version(NAME, wanted)


def test_alias_is_pinned_to_its_version() -> None:
    assert pin_version(f"models:/{NAME}@champion") == f"models:/{NAME}/2"


@pytest.mark.parametrize("uri", [f"models:/{NAME}/99", "runs:/0123456789abcdef/model", "models:/m-0123456789abcdef"])
def test_uri_without_an_alias_is_pinned_already(uri: str) -> None:
    # The version need not exist any more: a training that continues has weights of its own.
    assert pin_version(uri) == uri


@pytest.mark.parametrize("uri", ["models:/nobody@champion", f"models:/{NAME}@nobody"])
def test_unknown_alias_is_refused_with_the_store(uri: str, store: str) -> None:
    with pytest.raises(ModelError, match=f"^model={uri} cannot be read from {store}: ") as error:
        pin_version(uri)
    assert "\n" not in error.value.message


def test_alias_that_no_version_has_is_none() -> None:
    assert version_with(NAME, "nobody") is None
    with pytest.raises(ModelError, match="model=nobody cannot be read: .*; name a registered model"):
        version_with("nobody", "champion")


def test_alias_without_an_earlier_version_cannot_go_back() -> None:
    with pytest.raises(PromotionError, match="@nobody cannot be rolled back: no version has the alias"):
        move_back(NAME, "nobody", "a-run", "complaints")
    with pytest.raises(PromotionError, match=f"{NAME} version 2 has the alias, and no tag names the version that had"):
        move_back(NAME, "champion", "a-run", "complaints")
    found = version_with(NAME, "champion")
    assert found is not None
    assert found.version == "2"


def test_version_is_not_a_path(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no model URI"):
        find_version(f"{tmp_path}/model", "champion")
