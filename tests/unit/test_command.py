"""The command `sparkcnn`: its jobs, their exit statuses, and the one line on standard error."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import Field

from cnnlib import errors
from cnnlib.config import Settings
from cnnlib.errors import LimitError, SparkcnnError
from jobs import sparkcnn
from jobs.catalogue import JOBS, Job
from jobs.command import run_job
from jobs.exit_status import exit_without_waiting

PROJECT = Path(__file__).resolve().parents[2]

STATUS = {
    "ConfigError": 2,
    "HostError": 2,
    "SourceError": 2,
    "OutputExistsError": 2,
    "ImageSetError": 2,
    "ModelError": 2,
    "FeedError": 1,
    "TrainingError": 1,
    "DivergenceError": 3,
    "TrackingError": 2,
    "PromotionError": 2,
    "LimitError": 3,
    "GateError": 4,
}


class Count(Settings):
    """How much work."""

    count: int = Field(1, gt=0, description="pieces of work")


def job_of(work, name: str = "count") -> Job:
    return Job(name, Count, work)


def failing(error: BaseException, name: str = "count") -> Job:
    def work(settings: Count) -> None:
        raise error

    return job_of(work, name)


# --- run_job


def test_every_kind_of_error_has_its_status_here():
    kinds = {k.__name__ for k in vars(errors).values() if isinstance(k, type) and issubclass(k, SparkcnnError)}
    assert kinds - {"SparkcnnError"} == set(STATUS)


def test_codes_are_unlike_each_other():
    codes = [getattr(errors, name).code for name in STATUS]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("name", STATUS)
def test_error_ends_with_its_status_and_one_line(name, capsys):
    error = getattr(errors, name)("train.epochs=0\n  is too small;\n\tsay 1 or more")
    assert run_job(failing(error, "train"), []) == STATUS[name]
    assert capsys.readouterr() == ("", "sparkcnn train: train.epochs=0 is too small; say 1 or more\n")


def test_done_is_status_zero_and_silent(capsys):
    done = []
    assert run_job(job_of(lambda settings: done.append(settings.count)), ["--count", "4"]) == 0
    assert done == [4]
    assert capsys.readouterr() == ("", "")


def test_invalid_settings_start_nothing(capsys):
    done = []
    assert run_job(job_of(done.append), ["--count", "0"]) == 2
    assert done == []
    line = capsys.readouterr().err
    assert line.startswith("sparkcnn count: count: ")
    assert line.count("\n") == 1


def test_arguments_default_to_the_command_line(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["count.py", "--count", "6"])
    done = []
    assert run_job(job_of(lambda settings: done.append(settings.count))) == 0
    assert done == [6]


def test_interrupt_ends_with_130(capsys):
    assert run_job(failing(KeyboardInterrupt()), []) == 130
    assert capsys.readouterr().err == "sparkcnn count: interrupted; nothing unfinished was published\n"


def test_fault_of_the_program_passes_with_its_trace():
    with pytest.raises(ZeroDivisionError):
        run_job(failing(ZeroDivisionError()), [])


def test_error_without_a_message_is_still_a_line(capsys):
    assert run_job(failing(LimitError("")), []) == 3
    assert capsys.readouterr().err.count("\n") == 1


def test_exit_without_waiting_ends_with_the_status(monkeypatch, capsys):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)

    def work() -> None:
        raise LimitError("too few")

    exit_without_waiting("count", work)
    assert ended == [3]
    assert capsys.readouterr().err == "sparkcnn count: too few\n"


# --- sparkcnn


def run(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["sparkcnn", *arguments])
    return sparkcnn.main()


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]], ids=str)
def test_help_lists_every_job_with_what_it_does(arguments, monkeypatch, capsys):
    assert run(monkeypatch, *arguments) == 0
    shown = capsys.readouterr().out
    for job in JOBS.values():
        assert f"  {job.name:<8} {job.summary}\n" in shown


def test_every_entry_point_is_a_job():
    entry_points = {path.stem for path in (PROJECT / "jobs").glob("*.py") if "sys.exit(main())" in path.read_text()}
    assert entry_points - {"sparkcnn"} == set(JOBS)


@pytest.mark.parametrize("name", JOBS)
def test_entry_point_runs_its_job(name):
    assert importlib.import_module(f"jobs.{name}").main.args == (JOBS[name],)


@pytest.mark.parametrize("command", [[PROJECT / "jobs" / "ingest.py"], ["-m", "jobs.ingest"]], ids=["file", "module"])
def test_entry_point_starts_as_file_and_as_module(command, tmp_path):
    ended = subprocess.run(
        [sys.executable, *command, "--zzz", "1"], capture_output=True, text=True, cwd=tmp_path, check=False, timeout=120
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("sparkcnn ingest: ")
    assert ended.stderr.endswith("unrecognized arguments: --zzz 1; see --help for all settings\n")


@pytest.mark.parametrize(("name", "hint"), [("trian", "did you mean train?"), ("ingst", "did you mean ingest?")])
def test_unknown_job_gets_the_nearest_as_hint(name, hint, monkeypatch, capsys):
    assert run(monkeypatch, name, "--x") == 2
    assert capsys.readouterr() == ("", f"sparkcnn: {name} is not a job; {hint}\n")


def test_job_like_no_other_lists_all(monkeypatch, capsys):
    assert run(monkeypatch, "zzz") == 2
    known = "ingest, train, compare, tune, score, evaluate, promote, demo, doctor, plan, models, cost, show, imagenet"
    assert capsys.readouterr().err == f"sparkcnn: zzz is not a job; take one of {known}\n"


def test_installed_command_ends_with_the_jobs_status(tmp_path):
    ended = subprocess.run(
        [Path(sys.executable).with_name("sparkcnn"), "ingest", "--source.fromat", "idx"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("sparkcnn ingest: ")
    assert ended.stderr.endswith("did you mean source.format?\n")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["models", "--hepl"], 2), (["--help"], 0), (["ingest", "--help"], 0), (["trian"], 2)],
)
def test_wheel_task_fails_exactly_if_its_job_does(tmp_path, arguments, status):
    """Databricks loads the entry point of a wheel task and calls it, and nobody reads what it returns."""
    task = """
import sys
from importlib.metadata import entry_points
(entry_point,) = entry_points(group="console_scripts", name="sparkcnn")
sys.argv = ["sparkcnn", *sys.argv[1:]]
entry_point.load()()
print("the task went on", file=sys.stdout)
"""
    ended = subprocess.run(
        [sys.executable, "-c", task, *arguments], capture_output=True, text=True, cwd=tmp_path, check=False, timeout=120
    )
    assert ended.returncode == status
    assert ("the task went on" in ended.stdout) == (status == 0)


def test_lines_of_another_process_are_quoted_below_the_error(capsys):
    error = errors.TrainingError("rank 1 was killed by SIGKILL", ["step 7", "out of memory"])
    assert run_job(failing(error, "train"), []) == 1
    assert capsys.readouterr().err.splitlines() == [
        "sparkcnn train: rank 1 was killed by SIGKILL",
        "  | step 7",
        "  | out of memory",
    ]
    # A notebook shows the error as text.
    assert str(error).splitlines() == ["rank 1 was killed by SIGKILL", "  | step 7", "  | out of memory"]
