"""Which run can be resumed, and which one `train.resume=auto` finds in a real store."""

from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pytest

from cnnlib.config import TrackingSettings
from cnnlib.errors import ConfigError
from cnnlib.image_set.contract import ImageSet
from pipelines.tracking.resume import LoggedRun, check_resumable
from pipelines.tracking.runs import LOST, end_lost_runs, nested_run, nested_runs, tracked_run
from pipelines.tracking.store import connect
from pipelines.tracking.tags import earlier_key, tag_key
from pipelines.tracking.tracker import FINGERPRINT
from tests.unit.image_sets import write_image_set

SETTINGS = {"train.epochs": 4, "train.seed": 1}


@pytest.fixture(scope="module")
def image_set(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    images = np.arange(4 * 16, dtype=np.uint8).reshape(4, 4, 4, 1)
    return write_image_set(tmp_path_factory.mktemp("set"), images, [0, 1] * 2, ["train"] * 4, classes=("a", "b"))


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory, new_store: Callable[[Path], str]) -> str:
    return connect(TrackingSettings(uri=new_store(tmp_path_factory.mktemp("store"))))


def test_settings_that_may_differ_are_no_obstacle() -> None:
    logged = {"train.epochs": "4", "train.keep_last": "2", "tune.parallel": "1", "register.name": "a"}
    given = {"train.epochs": 4, "train.keep_last": 9, "tune.parallel": 8, "register.alias": "b"}
    check_resumable(LoggedRun("id", finished=False, settings=logged, fingerprint="f"), given, "f")


def test_every_other_difference_is_named() -> None:
    logged = {"train.epochs": "4", "train.seed": "0"}
    run = LoggedRun("id", finished=False, settings=logged, fingerprint=None)
    with pytest.raises(ConfigError) as error:
        check_resumable(run, {"train.epochs": 5, "model.name": "lenet"}, "f")
    assert error.value.message == (
        "train.resume=id was started with other settings or images: model.name was not set, received lenet; "
        "train.epochs was 4, received 5; train.seed was 0, received nothing; the image set's fingerprint was not set, "
        "received f; use the same ones, or leave out train.resume to start a new run"
    )


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        # (minute of the start, status, epochs) of each run, in the order in which the store got them. Runs of a minute
        # below 0 are of an earlier state of sparkcnn, which had other keys of tags.
        pytest.param([(2, "FAILED", 4), (1, "FAILED", 4)], 2, id="newest of two"),
        pytest.param([(1, "RUNNING", 4), (2, "KILLED", 4)], 2, id="newest of two, other order"),
        pytest.param([(1, "FAILED", 4), (2, "FINISHED", 4)], 1, id="a finished one is newer"),
        pytest.param([(1, "FAILED", 4), (2, "FAILED", 5)], 1, id="one of other settings is newer"),
        pytest.param([(1, "FINISHED", 4), (2, "FAILED", 5)], None, id="none fits"),
        pytest.param([(-1, "FAILED", 4), (2, "FINISHED", 4)], -1, id="one of an earlier state"),
    ],
)
def test_auto_resumes_newest_unfinished_run_of_same_settings(
    uri: str, image_set: ImageSet, request: pytest.FixtureRequest, runs: list, expected: int | None
) -> None:
    client = mlflow.MlflowClient(uri)
    name = request.node.name
    experiment = client.create_experiment(name)
    ids: dict[int | None, str] = {}
    for minute, status, epochs in runs:
        tags = {(earlier_key if minute < 0 else tag_key)(FINGERPRINT): image_set.fingerprint}
        run_id = client.create_run(experiment, start_time=abs(minute) * 60_000, tags=tags).info.run_id
        for setting, value in (SETTINGS | {"train.epochs": epochs}).items():
            client.log_param(run_id, setting, value)
        client.set_terminated(run_id, status)
        ids[minute] = run_id
    with tracked_run(uri, name, "a name", "auto", SETTINGS, image_set) as tracker:
        assert (tracker.run_id == ids.get(expected)) is (expected is not None)
        assert (tracker.run_id in ids.values()) is (expected is not None)


def test_auto_never_resumes_one_training_of_a_comparison(uri: str, image_set: ImageSet) -> None:
    with (
        tracked_run(uri, "compared", "comparison", None, {}, image_set) as parent,
        pytest.raises(KeyError),
        nested_run(parent, "adam, seed 1", SETTINGS, image_set) as nested,
    ):
        raise KeyError("training")
    with tracked_run(uri, "compared", "training", "auto", SETTINGS, image_set) as tracker:
        assert tracker.run_id not in (parent.run_id, nested.run_id)


def test_runs_after_the_first_page_are_found(uri: str, image_set: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.tracking.runs.RUNS_A_PAGE", 2)
    with tracked_run(uri, "pages", "comparison", None, SETTINGS, image_set, job="compare") as parent:
        for number in range(5):
            with nested_run(parent, str(number), SETTINGS, image_set):
                pass
        assert [run.name for run in nested_runs(parent)] == ["0", "1", "2", "3", "4"]
    mlflow.MlflowClient(uri).set_terminated(parent.run_id, "KILLED")
    with tracked_run(uri, "pages", "comparison", "auto", SETTINGS, image_set, job="compare") as again:
        assert again.run_id == parent.run_id


def test_only_lost_runs_are_ended(uri: str, image_set: ImageSet) -> None:
    client = mlflow.MlflowClient(uri)
    with tracked_run(uri, "lost", "comparison", None, {}, image_set) as parent:
        with nested_run(parent, "ended", SETTINGS, image_set) as ended:
            pass
        tags = {"mlflow.parentRunId": parent.run_id}
        lost = client.create_run(parent.experiment_id, tags=tags, run_name="lost").info.run_id
        other = client.create_run(parent.experiment_id, run_name="of nobody").info.run_id
        assert end_lost_runs(parent) == [lost]
        assert end_lost_runs(parent) == []
        found = {run.run_id: (run.name, run.status, tag_key(LOST) in run.tags) for run in nested_runs(parent)}
    assert found == {ended.run_id: ("ended", "FINISHED", False), lost: ("lost", "FAILED", True)}
    assert client.get_run(other).info.status == "RUNNING"
