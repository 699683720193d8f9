"""Exit statuses and the one line on standard error; and the command that names the jobs."""

import ast
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
from jobs.command import run_job

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


def failing(error: BaseException):
    def work(settings: Count) -> None:
        raise error

    return work


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
    assert run_job("train", Count, failing(error), []) == STATUS[name]
    assert capsys.readouterr() == ("", "sparkcnn train: train.epochs=0 is too small; say 1 or more\n")


def test_done_is_status_zero_and_silent(capsys):
    done = []
    assert run_job("count", Count, lambda settings: done.append(settings.count), ["--count", "4"]) == 0
    assert done == [4]
    assert capsys.readouterr() == ("", "")


def test_settings_that_do_not_fit_start_nothing(capsys):
    done = []
    assert run_job("count", Count, done.append, ["--count", "0"]) == 2
    assert done == []
    line = capsys.readouterr().err
    assert line.startswith("sparkcnn count: count: ")
    assert line.count("\n") == 1


def test_arguments_are_the_command_lines_where_none_are_given(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["count.py", "--count", "6"])
    done = []
    assert run_job("count", Count, lambda settings: done.append(settings.count), None) == 0
    assert done == [6]


def test_interrupt_ends_with_130(capsys):
    assert run_job("count", Count, failing(KeyboardInterrupt()), []) == 130
    assert capsys.readouterr().err == "sparkcnn count: interrupted; nothing unfinished was published\n"


def test_fault_of_the_program_passes_with_its_trace():
    with pytest.raises(ZeroDivisionError):
        run_job("count", Count, failing(ZeroDivisionError()), [])


def test_error_without_a_message_is_still_a_line(capsys):
    assert run_job("count", Count, failing(LimitError("")), []) == 3
    assert capsys.readouterr().err.count("\n") == 1


# --- sparkcnn


def run(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["sparkcnn", *arguments])
    return sparkcnn.main()


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]], ids=str)
def test_help_lists_every_job_with_what_it_does(arguments, monkeypatch, capsys):
    assert run(monkeypatch, *arguments) == 0
    shown = capsys.readouterr().out
    for name in sparkcnn.JOBS:
        does = ast.get_docstring(ast.parse((PROJECT / "jobs" / f"{name}.py").read_text()))
        assert f"  {name:<8} {does}\n" in shown


def test_every_entry_point_is_a_job():
    entry_points = {path.stem for path in (PROJECT / "jobs").glob("*.py") if "def main(" in path.read_text()}
    assert entry_points - {"sparkcnn"} == set(sparkcnn.JOBS)


@pytest.mark.parametrize(("name", "hint"), [("trian", "did you mean train?"), ("ingst", "did you mean ingest?")])
def test_unknown_job_is_told_the_nearest(name, hint, monkeypatch, capsys):
    assert run(monkeypatch, name, "--x") == 2
    assert capsys.readouterr() == ("", f"sparkcnn: {name} is no job; {hint}\n")


def test_unknown_job_like_none_is_told_them_all(monkeypatch, capsys):
    assert run(monkeypatch, "zzz") == 2
    known = "ingest, train, compare, tune, score, evaluate, promote, demo, doctor, plan, models, cost, show, imagenet"
    assert capsys.readouterr().err == f"sparkcnn: zzz is no job; take one of {known}\n"


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


def test_lines_of_another_process_are_quoted_below_the_error(capsys):
    error = errors.TrainingError("rank 1 was killed by SIGKILL", ["step 7", "out of memory"])
    assert run_job("train", Count, failing(error), []) == 1
    assert capsys.readouterr().err.splitlines() == [
        "sparkcnn train: rank 1 was killed by SIGKILL",
        "  | step 7",
        "  | out of memory",
    ]
    # As a notebook shows it.
    assert str(error).splitlines() == ["rank 1 was killed by SIGKILL", "  | step 7", "  | out of memory"]
