"""The progress of a job: a live bar in a terminal, and plain lines elsewhere."""

import io

import pytest
from rich.console import Console

from pipelines.spark import progress as module
from pipelines.spark.progress import Progress


def test_plain_lines_say_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 0.0)
    output = io.StringIO()
    with Progress(Console(file=output)).step("train") as advance:
        advance(1, 2000, "steps")
        advance(2000, 2000, "steps [epoch 1/3]")
    first, *steps, last = output.getvalue().splitlines()
    assert first == "train …"
    assert steps == ["train: 1/2,000 steps (0 s)", "train: 2,000/2,000 steps [epoch 1/3] (0 s)"]
    assert last.startswith("train: done in 0.")


def test_plain_lines_are_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    with Progress(Console(file=output)).step("train") as advance:
        for done in range(1000):
            advance(done, 1000, "steps")
    assert len(output.getvalue().splitlines()) == 2


def test_terminal_shows_a_bar_and_keeps_the_last_line() -> None:
    output = io.StringIO()
    with Progress(Console(file=output, force_terminal=True, width=100, highlight=False)).step("train") as advance:
        advance(433, 1293, "steps")
    assert "433/1,293 steps" in output.getvalue()
    assert "train: done in 0." in output.getvalue().splitlines()[-1]


def test_failed_step_is_not_reported_as_done() -> None:
    output = io.StringIO()
    with pytest.raises(RuntimeError), Progress(Console(file=output)).step("train"):
        raise RuntimeError
    assert "done" not in output.getvalue()
