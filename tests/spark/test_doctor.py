"""doctor with a real Spark: a sound setup, every kind of fault, and checks that hang."""

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession

from cnnlib.config import DoctorSettings, FitSettings
from cnnlib.errors import HostError
from cnnlib.image_set.contract import ImageSet
from jobs import doctor as job
from pipelines.doctor import cluster, machine
from pipelines.doctor import flow as doctor
from pipelines.doctor.examination import NOT_CHECKED, OK, PROBLEM, Finding
from tests.unit.image_sets import write_image_set


@pytest.fixture(scope="module")
def image_set(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """150 train images in 5 row groups, and 30 val images."""
    images = np.random.default_rng(0).integers(0, 256, (180, 16, 16, 1), dtype=np.uint8)
    splits = ["train"] * 150 + ["val"] * 30
    folder = tmp_path_factory.mktemp("doctor") / "set"
    return write_image_set(folder, images, [0, 1] * 90, splits, classes=("a", "b"))


@pytest.fixture
def found(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Finding]]:
    """Examine in an empty working folder, and return the findings by name. TensorFlow is tested elsewhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(machine, "check_tensorflow", lambda timeout_s: "imports")

    def find(**settings: Any) -> dict[str, Finding]:
        findings = doctor.examine(DoctorSettings(**settings)).findings
        return {finding.name: finding for finding in findings}

    return find


@pytest.mark.main_path
def test_sound_setup_has_no_problem(
    found: Callable[..., dict[str, Finding]], image_set: ImageSet, tmp_path: Path
) -> None:
    findings = found(
        data={"path": image_set.folder.uri}, train={"workers": 2, "ports": "42000-42099"}, output={"path": "out/new"}
    )
    assert {name for name, finding in findings.items() if finding.verdict == PROBLEM} == set()
    # doctor uses the active session of the tests, so it does not check Java.
    assert {name for name, finding in findings.items() if finding.verdict == NOT_CHECKED} == {"GPUs"}
    assert findings["image set"].found == "150 train, 30 val, 0 test; 2 classes; train has 5 row groups"
    assert findings["network"].found.endswith("reach one another by ports 42000-42099")
    assert findings["task slots"].found == "2 at once; train.workers=2"
    assert findings["MLflow store"].found.endswith("mlflow.db: does not exist yet; a training creates it")
    assert findings["output path"].found.startswith("written to from here and by 2 tasks on ")
    assert list(tmp_path.iterdir()) == []


def test_active_session_is_not_stopped(found: Callable[..., dict[str, Finding]], spark: SparkSession) -> None:
    assert "Java" not in found()
    assert spark.range(3).count() == 3


def test_each_fault_is_a_problem_of_its_own(
    found: Callable[..., dict[str, Finding]], image_set: ImageSet, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    start = time.monotonic()
    findings = found(
        data={"path": image_set.folder.uri},
        train={"workers": 9, "gpus_per_worker": 1},
        tracking={"uri": "http://127.0.0.1:9"},
        output={"path": "file/out"},
    )
    assert time.monotonic() - start < 60
    assert {name for name, finding in findings.items() if finding.verdict == PROBLEM} == {
        "task slots",
        "GPUs",
        "image set",
        "MLflow store",
        "output path",
    }
    assert findings["task slots"].note.startswith("train.workers=9 exceeds the 2 tasks")
    assert findings["GPUs"].note.startswith("train.gpus_per_worker=1, but Spark schedules no GPU")
    assert findings["image set"].note.startswith("train.workers=9 exceeds the 5 row groups")
    assert findings["MLflow store"].note.startswith("tracking.uri=http://127.0.0.1:9 does not answer")
    assert findings["network"].verdict == findings["store from tasks"].verdict == NOT_CHECKED
    # The remaining checks ran too.
    assert findings["files from tasks"].verdict == OK


def test_taken_ports_are_a_problem(found: Callable[..., dict[str, Finding]]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        finding = found(train={"workers": 2, "ports": f"{port}-{port}"})["network"]
    assert (finding.verdict, finding.found) == (PROBLEM, f"ports {port}-{port}")
    assert f"none of the ports {port}-{port} is free on 127.0.0.1" in finding.note
    assert "train.ports" in finding.note


def test_damaged_file_of_the_set_is_found(found: Callable[..., dict[str, Finding]], tmp_path: Path) -> None:
    images = np.zeros((60, 16, 16, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(60)
    image_set = write_image_set(
        tmp_path / "set", images, [0, 1] * 30, ["train"] * 40 + ["val"] * 20, classes=("a", "b")
    )
    (tmp_path / "set" / image_set.split("val").files[0].path).write_bytes(b"not Parquet")
    findings = found(data={"path": "set"}, train={"workers": 2})
    assert findings["image set"].verdict == OK
    for name in ("image files", "files from tasks"):
        assert findings[name].verdict == PROBLEM
        assert image_set.split("val").files[0].path in findings[name].note


def test_missing_image_set_is_reported_once(found: Callable[..., dict[str, Finding]], tmp_path: Path) -> None:
    findings = found(data={"path": "nowhere"})
    assert findings["image set"].note.startswith(f"{tmp_path}/nowhere is not an image set")
    assert findings["image files"].verdict == findings["files from tasks"].verdict == NOT_CHECKED


def test_other_versions_in_tasks_are_named(
    found: Callable[..., dict[str, Finding]], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = cluster._versions()
    newer = {**here, "versions": {**here["versions"], "keras": "99.0"}}
    monkeypatch.setattr(cluster, "_versions", _Once(newer))
    finding = found()["tasks"]
    assert finding.verdict == PROBLEM
    assert f"has keras {here['versions']['keras']} (here 99.0)" in finding.note


class _Once:
    """Returns a fixed answer in the driver. A task that unpickles it gets the real function instead."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self._answer = answer

    def __call__(self) -> dict[str, Any]:
        return self._answer

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return _real_versions, ()


def _real_versions() -> Callable[[], dict[str, Any]]:
    from pipelines.doctor.cluster import _versions

    return _versions


def test_failing_tasks_are_reported_once(
    found: Callable[..., dict[str, Finding]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> dict[str, Any]:
        import no_such_module  # noqa: F401

        return {}

    monkeypatch.setattr(cluster, "_Asking", lambda ask, arguments: fail)
    findings = found(train={"workers": 2}, output={"path": "out"})
    assert findings["tasks"].note.startswith("tasks fail: ModuleNotFoundError: No module named 'no_such_module'; make")
    assert findings["network"].verdict == NOT_CHECKED
    assert findings["output path"].found == "written to from here only"


def test_job_that_hangs_is_cancelled(found: Callable[..., dict[str, Finding]], spark: SparkSession) -> None:
    patience = 4.0

    def sleep() -> dict[str, Any]:
        time.sleep(60)
        return {}

    examiner = doctor._Doctor(DoctorSettings(timeout_s=patience), lambda name: None)
    examiner._spark = spark
    start = time.monotonic()
    examiner._check("Spark", "tasks", lambda: str(examiner._ask_tasks(sleep)))
    (finding,) = examiner._examination.findings
    assert finding.note.startswith("no answer for timeout_s=4")
    while examiner._examination.unfinished:
        assert time.monotonic() - start < 40
        time.sleep(0.1)
    # Its task slots are free again.
    assert cluster.ask_tasks(spark, FitSettings(), cluster._versions)[0]["python"]


# --- the job


def test_job_ends_with_status_2_after_the_table(
    found: Callable[..., dict[str, Finding]], capsys: pytest.CaptureFixture
) -> None:
    assert job.main(["--train.workers", "9"]) == 2
    captured = capsys.readouterr()
    assert "│ task slots " in captured.out
    checks = sum(captured.out.count(f"│ {verdict} ") for verdict in (OK, PROBLEM, NOT_CHECKED))
    assert captured.err == (
        f"sparkcnn doctor: 1 of {checks} checks found a problem: task slots; the table says what to do\n"
    )


def test_job_ends_with_status_0_where_all_is_well(
    found: Callable[..., dict[str, Finding]], capsys: pytest.CaptureFixture
) -> None:
    assert job.main([]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "│ Python " in captured.out


def test_job_does_not_wait_for_a_hanging_check(
    found: Callable[..., dict[str, Finding]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(machine, "check_petastorm", lambda: time.sleep(30) or "")
    ended: list[int] = []
    monkeypatch.setattr("os._exit", ended.append)
    assert job.main(["--timeout_s", "8"]) == 2
    assert ended == [2]
    assert "no answer for timeout_s=8" in capsys.readouterr().out


def test_without_spark_the_rest_is_checked(
    found: Callable[..., dict[str, Finding]], image_set: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> None:
        raise HostError("Spark did not start: no free port")

    monkeypatch.setattr(doctor, "_active_session", lambda: None)
    monkeypatch.setattr("pipelines.spark.session.spark_session", refuse)
    findings = found(data={"path": image_set.folder.uri}, train={"workers": 2}, output={"path": "out"})
    assert findings["Spark"].note == "Spark did not start: no free port"
    not_checked = {name for name, finding in findings.items() if finding.verdict == NOT_CHECKED}
    assert {"tasks", "task slots", "GPUs", "network", "files from tasks", "store from tasks"} <= not_checked
    assert findings["image files"].verdict == OK
    assert findings["output path"].found == "written to from here only"
