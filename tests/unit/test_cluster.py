"""What Spark's settings say of workers before any is asked for; tests/spark has what real sessions say."""

from types import SimpleNamespace

import pytest

from cnnlib.config import FitSettings
from pipelines.spark.cluster import environment_for_ranks, runs_here, store_problem, task_slots, workers_problem


def session(**settings: str) -> SimpleNamespace:
    """A Spark Connect session as far as its settings go; dots are written as double underscores."""
    known = {name.replace("__", "."): value for name, value in settings.items()}
    return SimpleNamespace(conf=SimpleNamespace(get=known.get))


@pytest.mark.parametrize(
    ("master", "slots"),
    [("local", 1), ("local[3]", 3), ("local[4,2]", 4), ("local[4, 2]", 4), ("spark://host:7077", None), ("yarn", None)],
)
def test_slots_of_a_master(master: str, slots: int | None) -> None:
    assert task_slots(session(spark__master=master)) == slots


def test_a_task_of_several_processors_takes_as_many() -> None:
    assert task_slots(session(spark__master="local[5]", spark__task__cpus="2")) == 2


def test_dynamic_allocation_is_refused_where_spark_would() -> None:
    # On a local master Spark takes no notice of it.
    for master, refused in (("spark://host:7077", True), ("local[2]", False)):
        spark = session(spark__master=master, spark__dynamicAllocation__enabled="true")
        problem = workers_problem(spark, FitSettings(workers=2))
        assert ("spark.dynamicAllocation.enabled=true; start it with false" in problem) is refused


@pytest.mark.parametrize(("amount", "fine"), [("1", True), ("1.0", True), ("0.5", False), (None, False)])
def test_each_worker_needs_a_gpu_of_its_own(amount: str | None, fine: bool) -> None:
    settings = {"spark__task__resource__gpu__amount": amount} if amount else {}
    problem = workers_problem(session(spark__master="yarn", **settings), FitSettings(workers=2, gpus_per_worker=1))
    assert (problem == "") is fine


def test_store_on_the_drivers_disk_is_refused_to_workers_elsewhere() -> None:
    far, near = session(spark__master="spark://host:7077"), session(spark__master="local-cluster[2,1,1024]")
    assert store_problem(far, "sqlite:////data/mlflow.db").startswith("tracking.uri=sqlite:////data/mlflow.db lies on")
    assert store_problem(far, "http://host:5000") == store_problem(far, "databricks") == ""
    assert store_problem(near, "sqlite:////data/mlflow.db") == ""
    assert (runs_here(far), runs_here(near)) == (False, True)


def test_ranks_get_what_stores_need_and_nothing_of_another_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_TOKEN", "AWS_PROFILE", "TF_CONFIG", "SPARK_HOME"):
        monkeypatch.setenv(name, "set")
    passed = environment_for_ranks()
    assert passed["MLFLOW_TRACKING_TOKEN"] == passed["AWS_PROFILE"] == "set"
    assert not {"TF_CONFIG", "SPARK_HOME"} & passed.keys()
