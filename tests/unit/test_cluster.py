"""Problems of workers that follow from Spark's settings alone. tests/spark asks real sessions."""

from types import SimpleNamespace

import pytest

from cnnlib.config import FitSettings
from pipelines.spark.cluster import environment_for_ranks, runs_here, store_problem, task_slots, workers_problem


def session(**settings: str) -> SimpleNamespace:
    """Return a fake Spark Connect session with these settings. Double underscores stand for dots."""
    known = {name.replace("__", "."): value for name, value in settings.items()}
    return SimpleNamespace(conf=SimpleNamespace(get=known.get))


@pytest.mark.parametrize(
    ("master", "slots"),
    [("local", 1), ("local[3]", 3), ("local[4,2]", 4), ("local[4, 2]", 4), ("spark://host:7077", None), ("yarn", None)],
)
def test_slots_follow_from_the_master(master: str, slots: int | None) -> None:
    assert task_slots(session(spark__master=master)) == slots


def test_task_cpus_reduce_the_slots() -> None:
    assert task_slots(session(spark__master="local[5]", spark__task__cpus="2")) == 2


def test_dynamic_allocation_is_refused_except_locally() -> None:
    # On a local master Spark ignores the setting.
    for master, refused in (("spark://host:7077", True), ("local[2]", False)):
        spark = session(spark__master=master, spark__dynamicAllocation__enabled="true")
        problem = workers_problem(spark, FitSettings(workers=2))
        assert ("spark.dynamicAllocation.enabled=true; set it to false" in problem) is refused


@pytest.mark.parametrize(("amount", "fine"), [("1", True), ("1.0", True), ("0.5", False), (None, False)])
def test_each_worker_needs_a_gpu_of_its_own(amount: str | None, fine: bool) -> None:
    settings = {"spark__task__resource__gpu__amount": amount} if amount else {}
    problem = workers_problem(session(spark__master="yarn", **settings), FitSettings(workers=2, gpus_per_worker=1))
    assert (problem == "") is fine


def test_store_on_the_drivers_disk_needs_local_workers() -> None:
    far, near = session(spark__master="spark://host:7077"), session(spark__master="local-cluster[2,1,1024]")
    assert store_problem(far, "sqlite:////data/mlflow.db").startswith("tracking.uri=sqlite:////data/mlflow.db lies on")
    assert store_problem(far, "http://host:5000") == store_problem(far, "databricks") == ""
    assert store_problem(near, "sqlite:////data/mlflow.db") == ""
    assert (runs_here(far), runs_here(near)) == (False, True)


def test_ranks_get_only_the_variables_of_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_TOKEN", "AWS_PROFILE", "TF_CONFIG", "SPARK_HOME"):
        monkeypatch.setenv(name, "set")
    passed = environment_for_ranks()
    assert passed["MLFLOW_TRACKING_TOKEN"] == passed["AWS_PROFILE"] == "set"
    assert not {"TF_CONFIG", "SPARK_HOME"} & passed.keys()
