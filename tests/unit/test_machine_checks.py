"""The checks of this machine: versions against ranges, Java, and TensorFlow."""

import importlib.metadata
import sys

import pytest

from cnnlib.errors import HostError
from pipelines.doctor import machine
from pipelines.doctor.examination import NotChecked, Problem


@pytest.fixture
def installed(monkeypatch):
    """Pretend that exactly these packages are installed, in these versions."""

    def install(**versions: str) -> None:
        def version(name: str) -> str:
            if name not in versions:
                raise importlib.metadata.PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(importlib.metadata, "version", version)

    return install


@pytest.mark.parametrize("version", ["2.18", "2.18.1", "2.21.0", "2.21.0rc1"])
def test_version_in_range_is_returned_with_the_range(installed, version):
    installed(tensorflow=version)
    assert machine.check_requirement("tensorflow<2.22,>=2.18") == f"{version} (>=2.18,<2.22)"


@pytest.mark.parametrize("version", ["2.17.1", "2.22.0", "3.0"])
def test_version_out_of_range_is_a_problem_with_advice(installed, version):
    installed(tensorflow=version)
    with pytest.raises(Problem) as problem:
        machine.check_requirement("tensorflow<2.22,>=2.18")
    assert problem.value.found == f"{version} (>=2.18,<2.22)"
    assert problem.value.advice == "install tensorflow >=2.18,<2.22"


def test_missing_package_is_a_problem(installed):
    installed()
    with pytest.raises(Problem, match=r"install petastorm \(>=0.13.1\)") as problem:
        machine.check_requirement("petastorm>=0.13.1")
    assert problem.value.found == "not installed"


def test_requirement_of_another_python_is_not_checked(installed):
    installed()
    with pytest.raises(NotChecked, match="python_version"):
        machine.check_requirement('tomli>=2; python_version < "3"')


def test_requirements_are_those_of_setup_py():
    names = {machine.requirement_name(requirement) for requirement in machine.requirements()}
    assert {"pyspark", "pyarrow", "numpy", "pandas", "tensorflow", "keras", "mlflow", "petastorm"} <= names


def test_this_python_passes():
    assert machine.check_python().endswith(f", {sys.executable}")


def test_missing_java_is_a_problem(monkeypatch, tmp_path):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(Problem, match="has no bin/java"):
        machine.check_java()


@pytest.fixture
def tensorflow_is(tmp_path, monkeypatch):
    """Write a module that is imported instead of the real tensorflow."""

    def write(source: str) -> None:
        (tmp_path / "tensorflow.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path))

    return write


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise ImportError('libcudart.so.12: cannot open')", "status 1: ImportError: libcudart.so.12: cannot open"),
        ("import os; os.abort()", "exit status -6"),
    ],
)
def test_broken_tensorflow_is_reported_in_one_line(tensorflow_is, source, message):
    tensorflow_is(source)
    with pytest.raises(HostError) as error:
        machine.check_tensorflow(60)
    assert message in error.value.message
    assert "\n" not in error.value.message


def test_tensorflow_that_hangs_is_killed(tensorflow_is):
    tensorflow_is("import time; time.sleep(60)")
    with pytest.raises(HostError, match="takes too long"):
        machine.check_tensorflow(1)
