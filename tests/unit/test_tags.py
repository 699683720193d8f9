"""The tags of runs, models and versions have keys that Unity Catalog takes. Those of earlier states are still read."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from cnnlib.errors import PromotionError
from pipelines.tracking.aliases import move_alias, move_back, promotion_of, version_with
from pipelines.tracking.registry import find_version
from pipelines.tracking.store import use_store
from pipelines.tracking.tracker import LATEST, Tracker

NAME = "photos"
# What Unity Catalog asks of the tags of models and versions.
KEY, LONGEST_KEY, LONGEST_VALUE = r"[A-Za-z0-9_]+", 255, 1000


@pytest.fixture
def client(tmp_path: Path, new_store: Callable[[Path], str]) -> MlflowClient:
    """A store with a model of two versions, and a run."""
    client = MlflowClient(new_store(tmp_path))
    use_store(client.tracking_uri)
    client.create_registered_model(NAME)
    for _ in range(2):
        client.create_model_version(NAME, source=str(tmp_path / "model"))
    return client


@pytest.fixture
def run_id(client: MlflowClient) -> str:
    return client.create_run(client.create_experiment("tags")).info.run_id


def tags_of(client: MlflowClient) -> list[dict[str, str]]:
    """Return the tags of the model, and those of each version."""
    return [client.get_registered_model(NAME).tags, *(client.get_model_version(NAME, str(n)).tags for n in (1, 2))]


@pytest.mark.parametrize("alias", ["champion", "champion-eu", "a-b_c"])
def test_unity_catalog_takes_every_tag(client: MlflowClient, run_id: str, alias: str) -> None:
    first, second = (find_version(NAME, number) for number in ("1", "2"))
    move_alias(first, alias, run_id, "the first one")
    with promotion_of(NAME, alias, run_id) as claim:
        claimed = tags_of(client)
        move_alias(second, alias, run_id, "it is better " * 1000, report="s3://bucket/" + "x" * 2000, check=claim.check)
    lost, got = move_back(NAME, alias, run_id, "it is worse " * 1000)
    assert (lost.version, got.version, version_with(NAME, alias).version) == ("2", "1", "1")
    assert [len(tags) for tags in claimed] == [1, 6, 0]
    assert [len(tags) for tags in tags_of(client)] == [0, 6, 7]
    for tags in (*claimed, *tags_of(client)):
        for key, value in tags.items():
            assert re.fullmatch(KEY, key), key
            assert len(key) <= LONGEST_KEY
            assert len(value) <= LONGEST_VALUE


def test_claim_of_an_earlier_state_counts(client: MlflowClient, run_id: str) -> None:
    experiment = client.get_run(run_id).info.experiment_id
    later = client.create_run(experiment, start_time=client.get_run(run_id).info.start_time + 1000).info.run_id
    client.set_registered_model_tag(NAME, f"sparkcnn.champion.promotion.{run_id}", "now")
    says = f"is being promoted by another job .run {run_id}"
    with pytest.raises(PromotionError, match=says), promotion_of(NAME, "champion", later):
        pass


def test_tags_of_earlier_states_are_read(client: MlflowClient, run_id: str) -> None:
    client.set_tag(run_id, "sparkcnn.latest_checkpoint", "3")
    experiment = client.get_run(run_id).info.experiment_id
    tracker = Tracker(run_id, experiment, client.tracking_uri)
    assert tracker.latest_epoch() == 3
    tracker.set_tag(LATEST, value="4")
    assert tracker.latest_epoch() == 4
    client.set_registered_model_alias(NAME, "champion", "2")
    client.set_model_version_tag(NAME, "2", "sparkcnn.champion.previous", "1")
    assert move_back(NAME, "champion", run_id, "")[1].version == "1"
