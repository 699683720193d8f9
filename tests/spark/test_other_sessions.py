"""Other kinds of sessions: executors in their own JVMs with GPUs that do not exist, and Spark Connect."""

from pathlib import Path
from typing import Any

import pyspark
import pytest

from tests.spark.own_process import run


@pytest.fixture(scope="module")
def on_cluster(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run("local_cluster", tmp_path_factory.mktemp("cluster"))


@pytest.fixture(scope="module")
def over_connect(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if int(pyspark.__version__.partition(".")[0]) < 4:
        pytest.skip("pyspark 3.5 has no Spark Connect server")
    return run("spark_connect", tmp_path_factory.mktemp("connect"))


def outcomes(ranks: list[dict[str, Any]]) -> list[str]:
    return [rank["outcome"] for rank in ranks]


def test_each_rank_sees_only_its_assigned_gpu(on_cluster: dict[str, Any]) -> None:
    assert outcomes(on_cluster["with GPUs"]) == ["done"] * 4
    reports = [one["result"] for one in on_cluster["with GPUs"]]
    assert all(report["gpu"] for report in reports)
    # Two executors run two tasks each. Each executor has its own folder, and the GPUs 0 and 1.
    seen = sorted(
        (Path(report["folder"]).parents[1], report["environment"]["CUDA_VISIBLE_DEVICES"]) for report in reports
    )
    assert [gpu for _, gpu in seen] == ["0", "1", "0", "1"]
    assert len({executor for executor, _ in seen}) == 2


def test_ranks_that_ask_for_no_gpu_see_none(on_cluster: dict[str, Any]) -> None:
    reports = [one["result"] for one in on_cluster["without"]]
    assert [(report["gpu"], report["environment"]["CUDA_VISIBLE_DEVICES"]) for report in reports] == [(False, "")] * 2


def test_gpu_that_tensorflow_cannot_find_is_refused(on_cluster: dict[str, Any]) -> None:
    (rank,) = on_cluster["real"]
    assert (rank["outcome"], rank["result"]["refused"]) == ("refused", "HostError")
    assert rank["result"]["message"].startswith("Spark assigned GPU 0 to rank 0, but TensorFlow finds no such GPU;")


def test_only_starting_executors_are_waited_for(on_cluster: dict[str, Any]) -> None:
    assert on_cluster["early"] == ""
    assert on_cluster["too many"].startswith("train.workers=5 exceeds the 4 tasks that this Spark can run at once")


def test_lost_executor_leaves_no_rank_and_is_replaced(on_cluster: dict[str, Any]) -> None:
    (lost,) = on_cluster["executor lost"]
    assert lost["outcome"] == "lost"
    assert "ExecutorLostFailure" in lost["message"]
    assert on_cluster["ranks are gone"]
    assert on_cluster["slots again"] == 4
    assert outcomes(on_cluster["again"]) == ["done"] * 4


def test_connect_launches_with_the_cores_of_a_task(over_connect: dict[str, Any]) -> None:
    assert outcomes(over_connect["launched"]) == ["done"] * 2
    assert [one["result"]["cpus"] for one in over_connect["launched"]] == [2, 2]


def test_connect_names_missing_resources(over_connect: dict[str, Any]) -> None:
    assert (over_connect["two"], over_connect["store"], over_connect["runs here"]) == ("", "", True)
    assert over_connect["three"].startswith(
        "train.workers=3 exceeds the 2 tasks that this Spark can run at once (local"
    )
    assert over_connect["GPUs"].startswith("train.gpus_per_worker=1, but Spark schedules no GPU to a task")
    not_started = "Spark did not start the tasks of train.workers=3 within 3 s; they must all run"
    assert over_connect["not begun"].startswith(not_started)
    # Spark Connect cannot tell how many task slots exist, so Spark itself reports this error.
    assert over_connect["too few slots"].startswith("train.workers=3 exceeds the tasks that this Spark can run at once")


def test_connect_ingests(over_connect: dict[str, Any]) -> None:
    assert over_connect["ingested"] == {"found": 20, "kept": 20, "duplicate": 0, "rejected": 0}


def test_connect_scores(over_connect: dict[str, Any]) -> None:
    assert over_connect["scored"] == [{"rows": 20, "scored": 20, "failed": 0}] * 2


def test_connect_evaluates_challenger_and_champion(over_connect: dict[str, Any]) -> None:
    assert over_connect["gates"] == [
        ["accuracy", True],
        ["recall of each class", True],
        ["better", False],
        ["speed", True],
        ["parity", False],
    ]


def test_interrupted_connect_client_leaves_no_rank(over_connect: dict[str, Any]) -> None:
    assert (over_connect["interrupted"], over_connect["ranks are gone"]) == (2, True)
