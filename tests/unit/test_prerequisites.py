"""A machine that lacks something gets one line and exit status 2. The Javas of these tests are shell scripts."""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines.spark import prerequisites

PROJECT = Path(__file__).resolve().parents[2]

GOOD_JAVA = """\
case $1 in
    -version) echo 'Picked up JAVA_TOOL_OPTIONS: -Xmx1g'; echo 'openjdk version "17.0.15" 2025-04-15' ;;
    --list-modules) echo 'java.base@17.0.15'; echo 'jdk.incubator.vector@17.0.15' ;;
esac
"""


def write_script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def good_java_home(tmp_path):
    write_script(tmp_path / "good-java/bin/java", GOOD_JAVA)
    return str(tmp_path / "good-java")


def says_version(version):
    return f"echo 'openjdk version \"{version}\"' >&2"


# --- Java


def test_folder_whose_programs_may_not_run_is_refused(tmp_path, monkeypatch):
    mount = os.statvfs(tmp_path)
    noexec = SimpleNamespace(f_flag=mount.f_flag | os.ST_NOEXEC, f_bavail=mount.f_bavail, f_frsize=mount.f_frsize)
    monkeypatch.setattr(prerequisites.os, "statvfs", lambda folder: noexec)
    assert prerequisites.unpacking_problem(str(tmp_path)) == f"{tmp_path} is mounted noexec"


def test_folder_without_room_or_that_is_missing_is_refused(tmp_path, monkeypatch):
    assert prerequisites.unpacking_problem(str(tmp_path)) == ""
    missing = tmp_path / "missing"
    assert prerequisites.unpacking_problem(str(missing)) == f"{missing} cannot be used (No such file or directory)"
    monkeypatch.setattr(prerequisites, "UNPACKED_MB", 10**12)
    problem = prerequisites.unpacking_problem(str(tmp_path))
    assert problem.startswith(f"{tmp_path} has ")
    assert problem.endswith(f" MB free, fewer than {10**12}")


def test_good_java_is_no_problem(good_java_home):
    assert prerequisites.java_problem({"JAVA_HOME": good_java_home}) == ""
    assert prerequisites.java_problem({"PATH": f"{good_java_home}/bin"}) == ""


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (says_version("1.8.0_402"), "is 1.8.0_402: install"),
        (says_version("11.0.2"), "is 11.0.2: install"),
        (says_version("16-ea"), "is 16-ea: install"),
        ("echo hello", "is of an unknown version: install"),
        ("echo 'no libjvm.so'; echo more; exit 1", "does not start (no libjvm.so): install"),
        ("exit 1", "does not start (it says nothing): install"),
        (f"[ $1 = --list-modules ] || {says_version('21-ea')}", "(21-ea) lacks the module jdk."),
    ],
)
def test_unsuitable_java_is_one_line(tmp_path, body, found):
    java = write_script(tmp_path / "bin/java", body)
    problem = prerequisites.java_problem({"JAVA_HOME": str(tmp_path)})
    assert problem.startswith(f"Java 17 or newer is needed, but {java} ")
    assert found in problem
    assert "\n" not in problem


def test_java_that_is_not_a_program_does_not_start(tmp_path):
    java = write_script(tmp_path / "bin/java", "")
    java.write_bytes(b"\x00\x01")
    assert "does not start (" in prerequisites.java_problem({"PATH": str(java.parent)})


def test_java_home_is_taken_before_path(tmp_path, good_java_home):
    # Spark does so too: it does not fall back to the java on PATH if JAVA_HOME is wrong.
    problem = prerequisites.java_problem({"JAVA_HOME": "/nowhere", "PATH": f"{good_java_home}/bin"})
    assert problem == (
        "Java 17 or newer is needed, but JAVA_HOME=/nowhere has no bin/java: "
        "set it to the folder of a Java, or unset it"
    )


def test_no_java_at_all(tmp_path):
    assert prerequisites.java_problem({"PATH": str(tmp_path)}) == (
        "Java 17 or newer is needed, but no java was found (JAVA_HOME is not set and PATH has none): "
        "install one, e.g. Debian's openjdk-17-jre-headless, or set JAVA_HOME"
    )


# --- Python and the folder


@pytest.mark.parametrize("version", [(3, 10, 0), (3, 11, 2), (3, 12, 9)])
def test_supported_python_is_no_problem(version):
    assert prerequisites.python_problem(version) == ""


@pytest.mark.parametrize("version", [(2, 7, 18), (3, 9, 18), (3, 13, 0), (4, 0, 0)])
def test_message_names_version_of_unsupported_python(version):
    problem = prerequisites.python_problem(version, executable="/usr/bin/python3")
    found = ".".join(map(str, version))
    assert problem.startswith(f"Python 3.10 to 3.12 is needed, but /usr/bin/python3 is {found}: install")


def test_message_says_to_remove_venv_of_another_python():
    assert prerequisites.python_problem((3, 13, 0), executable="/x/.venv/bin/python").endswith(": remove .venv")
    assert prerequisites.python_problem((3, 13, 0), executable="/x/.venv-lts/bin/python").endswith(": remove .venv-lts")


def test_prerequisites_parse_on_python_3_6():
    ast.parse(Path(prerequisites.__file__).read_text(), feature_version=(3, 6))


def test_writable_folder_is_no_problem(tmp_path):
    assert prerequisites.folder_problem(str(tmp_path)) == ""


@pytest.mark.parametrize("venv", [".venv", ".venv-lts"])
def test_file_in_place_of_venv(tmp_path, venv):
    (tmp_path / venv).touch()
    assert prerequisites.folder_problem(str(tmp_path), venv) == (
        f"{tmp_path}/{venv} must be a folder, but is something else: move it away"
    )


def test_folder_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write into any folder
    assert prerequisites.folder_problem(str(tmp_path)).startswith(f"{tmp_path} must be writable, but is not: ")


def test_without_ensurepip_a_working_uv_is_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    problem = prerequisites.venv_problem(str(tmp_path), {"PATH": str(tmp_path)})
    assert "has no ensurepip and PATH has no uv: install one, e.g. Debian's python3-venv" in problem

    uv = write_script(tmp_path / "uv", "exit 127")
    assert prerequisites.venv_problem(str(tmp_path), {"PATH": str(tmp_path)}) == problem

    write_script(uv, "echo uv 0.9")
    assert prerequisites.venv_problem(str(tmp_path), {"PATH": str(tmp_path)}) == ""


# --- The Makefile and its scripts, in a copy of the project that has nothing else


@pytest.fixture
def clone(tmp_path):
    folder = tmp_path / "clone"
    shutil.copytree(PROJECT / "requirements", folder / "requirements")
    (folder / "pipelines/spark").mkdir(parents=True)
    for name in ("Makefile", "setup.py", "pipelines/spark/prerequisites.py"):
        shutil.copy(PROJECT / name, folder / name)
    return folder


def run_in(folder, *command, path=os.environ["PATH"], **environ):
    # Inherit no variables: the make that runs these tests would pass on its flags.
    environ = {"PATH": path, **environ}
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=60)


def python_posing_as(path, version):
    """Write a Python that runs a script as if it had another version."""
    program = (
        f"import runpy, sys; sys.version_info = {version}; sys.executable = '{path}'; "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    return write_script(path, f'exec {sys.executable} -c "{program}" "$@"')


def assert_one_line(done, words):
    assert words in done.stderr
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done


@pytest.mark.parametrize("target", ["demo", "test", "lint", "wheel"])
def test_make_names_a_missing_java_in_one_line(clone, target):
    done = run_in(clone, "make", target, f"PYTHON={sys.executable}", JAVA_HOME="/nowhere")
    assert_one_line(done, "JAVA_HOME=/nowhere has no bin/java")


def test_make_names_an_unsuitable_python_in_one_line(clone, tmp_path, good_java_home):
    old = python_posing_as(tmp_path / "python3", (3, 9, 18))
    done = run_in(clone, "make", "demo", f"PYTHON={old}", JAVA_HOME=good_java_home)
    assert_one_line(done, f"Python 3.10 to 3.12 is needed, but {old} is 3.9.18: ")


def test_make_names_a_missing_python_in_one_line(clone):
    done = run_in(clone, "make", "demo", "PYTHON=/nowhere/python")
    assert_one_line(done, "Python 3.10 to 3.12 is needed, but none runs (tried /nowhere/python): ")


def test_make_names_an_unknown_profile_in_one_line(clone):
    done = run_in(clone, "make", "demo", "PROFILE=old")
    assert_one_line(done, "PROFILE=old has no requirements/old.txt: choose one of ")


def test_make_help_lists_targets_and_checks_nothing(clone):
    done = run_in(clone, "make", JAVA_HOME="/nowhere", PYTHON="/nowhere/python")
    assert done.returncode == 0
    assert done.stderr == ""
    for target in ("demo", "test", "petastorm", "lint", "wheel", "pins", "clean"):
        assert f"  make {target} " in done.stdout


def test_suitable_python_is_found_beside_others(clone, tmp_path, good_java_home):
    bin_folder = tmp_path / "bin"
    python_posing_as(bin_folder / "python3", (3, 13, 0))
    write_script(bin_folder / "python3.12", "echo 'pyenv: not installed' >&2; exit 127")
    python_posing_as(bin_folder / "python3.11", (3, 11, 2))
    done = run_in(
        clone,
        *("sh", "requirements/find_python.sh", ".venv", "python3", "python3.12", "python3.11"),
        path=f"{bin_folder}:{os.environ['PATH']}",
        JAVA_HOME=good_java_home,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "python3.11\n", "")


@pytest.mark.parametrize(("profile", "venv"), [("current", ".venv"), ("lts", ".venv-lts")])
def test_each_profile_has_its_own_environment(clone, good_java_home, profile, venv):
    arguments = ("demo", f"PYTHON={sys.executable}", f"PROFILE={profile}")
    done = run_in(clone, "make", "--dry-run", *arguments, JAVA_HOME=good_java_home)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"sh requirements/install.sh {sys.executable} {profile} {venv}",
        f"{venv}/bin/sparkcnn demo",
    ]


@pytest.fixture
def install(clone, tmp_path):
    """Return a function that runs install.sh with a uv and environments that only write down their arguments."""
    calls = tmp_path / "calls"
    for venv in (".venv", ".venv-lts"):
        write_script(clone / venv / "bin/python", f'echo "python $*" >>{calls}; [ "$1" = -c ]')
    uv = write_script(tmp_path / "bin/uv", f'echo "uv $*" >>{calls}')

    def run(profile="current", venv=".venv"):
        calls.write_text("")
        done = run_in(
            clone,
            *("sh", "requirements/install.sh", sys.executable, profile, venv),
            path=f"{uv.parent}:{os.environ['PATH']}",
        )
        return done, [call for call in calls.read_text().splitlines() if " install " in call]

    run.uv = uv
    return run


def test_second_install_does_nothing(install):
    done, calls = install()
    assert done.returncode == 0, done
    assert done.stdout.startswith("installing requirements/current.txt into .venv with uv")
    assert calls == [
        "uv pip install --python .venv/bin/python -r requirements/current.txt -r requirements/dev/current.txt",
        "uv pip install --python .venv/bin/python --no-deps --no-build-isolation -e .",
    ]

    done, calls = install()
    assert (done.returncode, done.stdout, calls) == (0, "", [])


def test_installing_one_profile_keeps_the_other(install):
    install()
    done, calls = install("lts", ".venv-lts")
    assert done.stdout.startswith("installing requirements/lts.txt into .venv-lts with uv")
    assert calls[0] == (
        "uv pip install --python .venv-lts/bin/python -r requirements/lts.txt -r requirements/dev/lts.txt"
    )
    assert install()[1] == install("lts", ".venv-lts")[1] == []


@pytest.mark.parametrize("name", ["requirements/current.txt", "requirements/dev/current.txt", "setup.py"])
def test_changed_requirements_are_installed(install, clone, name):
    install()
    with (clone / name).open("a") as file:
        file.write("# changed\n")
    assert len(install()[1]) == 2


def test_failed_install_tries_pip_and_is_not_finished(install):
    works = install.uv.read_text()
    write_script(install.uv, "[ $1 = --version ] || { echo 'uv says why'; exit 1; }")
    done, calls = install()
    assert done.returncode == 1
    assert calls == ["python -m pip install --quiet -r requirements/current.txt -r requirements/dev/current.txt"]
    assert "uv says why" in done.stdout

    install.uv.write_text(works)
    done, calls = install()
    assert (done.returncode, len(calls)) == (0, 2)
