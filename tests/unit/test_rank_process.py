"""The process of a rank: its inputs, its exit status and last lines, and its end with the process that started it."""

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipelines.train.workers.rank_process import LAST_LINES, RankProcess

TIMEOUT_S = 60.0
RANK = """
import json, os, signal, subprocess, sys, tempfile, time
from pipelines.train.workers.rank_process import end_with_standard_input, read_spec
spec = read_spec()
end_with_standard_input()
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Start a rank's process that reads its spec and then runs the given code."""

    def start(code: str, **spec: object) -> RankProcess:
        (tmp_path / "some_rank.py").write_text(RANK + code)
        monkeypatch.syspath_prepend(str(tmp_path))
        (tmp_path / "folder").mkdir()
        return RankProcess("some_rank", spec, {"SPARKCNN_TEST": "set"}, tmp_path / "folder", echo=False)

    return start


def test_process_gets_spec_environment_and_folder(run, tmp_path: Path) -> None:
    code = "print(json.dumps([spec, os.environ['SPARKCNN_TEST'], os.getcwd(), tempfile.gettempdir()]))"
    with run(code, rank=3, text="ä\n") as process:
        assert process.wait() == 0
    (line,) = process.last_lines
    folder = str(tmp_path / "folder")
    assert json.loads(line) == [{"rank": 3, "text": "ä\n"}, "set", folder, folder]


def test_last_lines_of_output_and_error_are_kept(run) -> None:
    with run("print(*range(30), sep='\\n')\nsys.exit('the disk is full')") as process:
        assert process.wait() == 1
    assert process.last_lines == [*map(str, range(31 - LAST_LINES, 30)), "the disk is full"]


def test_process_that_ignores_sigterm_is_killed(run) -> None:
    with run("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf')\ntime.sleep(600)") as process:
        deadline = time.monotonic() + TIMEOUT_S
        while process.last_lines != ["deaf"] and time.monotonic() < deadline:
            time.sleep(0.05)
        process.end()
        assert process.wait() == -9


def test_with_block_ends_the_process(run) -> None:
    with run("time.sleep(600)") as process:
        pass
    assert process.wait() == -15


def test_orphaned_child_does_not_delay_wait(run) -> None:
    code = "print(subprocess.Popen(['sleep', '600']).pid)\nsys.exit(7)"
    with run(code) as process:
        assert process.wait() == 7
    (line,) = process.last_lines
    psutil.Process(int(line)).kill()


def test_process_ends_when_its_starter_is_killed(tmp_path: Path) -> None:
    (tmp_path / "some_rank.py").write_text(RANK + "print(os.getpid())\ntime.sleep(600)")
    starter = (
        "import sys; from pathlib import Path; from pipelines.train.workers.rank_process import RankProcess;"
        f"sys.path.insert(0, {str(tmp_path)!r});"
        f"RankProcess('some_rank', {{}}, {{}}, Path({str(tmp_path)!r}), echo=True).wait()"
    )
    with subprocess.Popen([sys.executable, "-c", starter], stderr=subprocess.PIPE, text=True) as task:
        rank = psutil.Process(int(task.stderr.readline()))
        task.kill()
    assert psutil.wait_procs([rank], TIMEOUT_S)[1] == []
