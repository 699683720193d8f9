"""`Examination`: every check becomes a finding, whatever happens in it, and none exceeds the time limit."""

import sys
import threading
import time

import pytest

from cnnlib.errors import ConfigError, HostError
from pipelines.doctor.examination import NOT_CHECKED, OK, PROBLEM, Examination, Finding, NotChecked, Problem


def raising(error: BaseException):
    def check() -> str:
        raise error

    return check


def findings_of(*checks, timeout_s: float = 10.0) -> list[Finding]:
    examination = Examination(timeout_s, on_timeout=lambda: None)
    for number, check in enumerate(checks):
        examination.check("part", f"check {number}", check)
    return examination.findings


@pytest.mark.parametrize(
    ("check", "found", "verdict", "note"),
    [
        pytest.param(lambda: "17.0.15", "17.0.15", OK, "", id="well"),
        pytest.param(raising(Problem("2 slots", "lower it")), "2 slots", PROBLEM, "lower it", id="problem"),
        pytest.param(raising(NotChecked("no path")), "", NOT_CHECKED, "no path", id="not-checked"),
        pytest.param(raising(ConfigError("x=1\n is wrong")), "", PROBLEM, "x=1 is wrong", id="error-of-ours"),
        pytest.param(
            raising(ValueError("first\nsecond")), "", PROBLEM, "ValueError: first", id="error-of-another-library"
        ),
        pytest.param(lambda: sys.exit(3), "", PROBLEM, "the check exits: 3", id="exit"),
    ],
)
def test_every_outcome_of_a_check_becomes_a_finding(check, found, verdict, note):
    assert findings_of(check) == [Finding("part", "check 0", found, verdict, note)]


def test_check_runs_after_one_that_failed():
    findings = findings_of(raising(ZeroDivisionError()), lambda: "well")
    assert [finding.verdict for finding in findings] == [PROBLEM, OK]


def test_check_that_hangs_is_a_problem_and_the_next_runs():
    release = threading.Event()
    stopped = []
    examination = Examination(0.2, on_timeout=lambda: stopped.append(True))
    start = time.monotonic()
    examination.check("part", "storage", lambda: str(release.wait(30)))
    examination.check("part", "next", lambda: "well")
    assert time.monotonic() - start < 10
    assert [finding.verdict for finding in examination.findings] == [PROBLEM, OK]
    assert examination.findings[0].note.startswith("no answer for timeout_s=0.2")
    assert (stopped, examination.unfinished) == ([True], ["storage"])
    release.set()
    while examination.unfinished:
        assert time.monotonic() - start < 20
        time.sleep(0.01)


def test_error_counts_and_names_the_problems():
    examination = Examination(10.0, on_timeout=lambda: None)
    for name, check in (("Java", raising(HostError("none"))), ("Python", lambda: "3.11"), ("GPUs", raising(OSError()))):
        examination.check("part", name, check)
    with pytest.raises(HostError) as refused:
        examination.refuse_problems()
    assert refused.value.message == "2 of 3 checks found a problem: Java, GPUs; the table says what to do"
    assert refused.value.exit_status == 2


def test_examination_without_problems_raises_nothing():
    examination = Examination(10.0, on_timeout=lambda: None)
    examination.check("part", "Java", raising(NotChecked("Spark runs")))
    examination.refuse_problems()
