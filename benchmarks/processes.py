"""Measuring a command in a process of its own, and all the processes it starts."""

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
SECONDS_A_COMMAND = 3600
SECONDS_TO_END = 15
# Spark's Python workers are forks of its daemon, and keep its command line.
PYTHON_WORKER = "pyspark.daemon"


class CommandFailed(Exception):
    """A measured command did not end well; the message is the last line it said, `errors` is all of it."""

    def __init__(self, message: str, errors: str) -> None:
        super().__init__(message)
        self.errors = errors


@dataclass(frozen=True)
class Finished:
    """What a command printed, how long it ran from its start to its end, and its largest Python worker of Spark's."""

    output: str
    seconds: float
    worker_bytes: int


def run_command(
    command: Sequence[str], environment: Mapping[str, str] | None = None, *, look_every_s: float = 0.5
) -> Finished:
    """Run a command from this project's folder, and come back when it and every process it has started are gone.

    Raises CommandFailed for an exit status other than 0, and for a command that runs for an hour.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        process = psutil.Popen(
            command,
            cwd=ROOT,
            env=environment or with_this_project(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
        )
        family = _Family(process)
        try:
            while process.poll() is None and time.perf_counter() - start < SECONDS_A_COMMAND:
                family.look()
                _wait(process, look_every_s)
            seconds = time.perf_counter() - start
        finally:
            family.end()
        output.seek(0)
        errors.seek(0)
        told = errors.read()
        if process.returncode:
            lines = [line.strip() for line in told.splitlines() if line.strip()]
            raise CommandFailed(lines[-1] if lines else f"exit status {process.returncode}", told)
        return Finished(output.read(), seconds, family.worker_bytes)


def with_this_project(*folders: Path) -> dict[str, str]:
    """This environment, in which Pythons, Spark's workers too, find this project, and packages in further folders."""
    path = [*map(str, (ROOT, *folders)), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path)}


def _wait(process: psutil.Popen, seconds: float) -> None:
    with contextlib.suppress(psutil.TimeoutExpired):
        process.wait(seconds)


class _Family:
    """A process and all that it starts, whoever adopts them."""

    def __init__(self, process: psutil.Popen) -> None:
        self._first = process
        self._seen: set[psutil.Process] = set()
        self.worker_bytes = 0

    def look(self) -> None:
        """Note who is there, and how large the Python workers have been."""
        try:
            self._seen.update(self._first.children(recursive=True))
        except psutil.NoSuchProcess:
            return
        for process in self._seen:
            try:
                if any(PYTHON_WORKER in argument for argument in process.cmdline()):
                    self.worker_bytes = max(self.worker_bytes, peak_bytes(process))
            except (psutil.Error, OSError):
                continue  # it has ended meanwhile

    def end(self) -> None:
        """Wait until all are gone; what stays is told to go, then made to."""
        if self._first.poll() is None:
            self._first.kill()
            self._first.wait()
        _, staying = psutil.wait_procs(self._seen, SECONDS_TO_END)
        for process in staying:
            process.terminate()
        _, staying = psutil.wait_procs(staying, SECONDS_TO_END)
        for process in staying:
            process.kill()


def peak_bytes(process: psutil.Process) -> int:
    """The largest resident set that a process has had so far, by the kernel's own count."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
