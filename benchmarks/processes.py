"""Run a command in its own process, and measure it and all processes that it starts."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
SECONDS_PER_COMMAND = 3600
SECONDS_TO_END = 15
# Spark's daemon forks its Python workers, so they have the command line of the daemon.
PYTHON_WORKER = "pyspark.daemon"


class CommandFailed(Exception):
    """A measured command failed. The message is the last line of its standard error, `errors` is all of it."""

    def __init__(self, message: str, errors: str) -> None:
        super().__init__(message)
        self.errors = errors


@dataclass(frozen=True)
class Finished:
    """The output of a command, its seconds from start to end, and the peak bytes of its largest Python worker."""

    output: str
    seconds: float
    worker_bytes: int


def run_command(
    command: Sequence[str], environment: Mapping[str, str] | None = None, *, sample_every_s: float = 0.5
) -> Finished:
    """Run a command in this project's folder. Return when it and all processes that it started have ended.

    Raises CommandFailed if the exit status is not 0, or if the command runs longer than an hour.
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
        processes = _ProcessTree(process)
        try:
            while process.poll() is None and time.perf_counter() - start < SECONDS_PER_COMMAND:
                processes.sample()
                _wait(process, sample_every_s)
            seconds = time.perf_counter() - start
        finally:
            processes.end()
        output.seek(0)
        errors.seek(0)
        error_text = errors.read()
        if process.returncode:
            lines = [line.strip() for line in error_text.splitlines() if line.strip()]
            raise CommandFailed(lines[-1] if lines else f"exit status {process.returncode}", error_text)
        return Finished(output.read(), seconds, processes.worker_bytes)


def with_this_project(*folders: Path) -> dict[str, str]:
    """Return this environment, extended so that every Python finds this project and the packages in `folders`."""
    path = [*map(str, (ROOT, *folders)), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path)}


def pip_install(folder: Path, *packages: str) -> None:
    """Install packages into a folder, without their dependencies. `with_this_project` lets Python find the folder.

    Raises CommandFailed with the message of pip if that fails.
    """
    run_command([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *packages])


def _wait(process: psutil.Popen, seconds: float) -> None:
    with contextlib.suppress(psutil.TimeoutExpired):
        process.wait(seconds)


class _ProcessTree:
    """A process and all processes that it starts, also those whose parent has already ended."""

    def __init__(self, process: psutil.Popen) -> None:
        self._first = process
        self._seen: set[psutil.Process] = set()
        self.worker_bytes = 0

    def sample(self) -> None:
        """Record the processes that exist now, and the peak memory of the Python workers so far."""
        try:
            self._seen.update(self._first.children(recursive=True))
        except psutil.NoSuchProcess:
            return
        for process in self._seen:
            try:
                if any(PYTHON_WORKER in argument for argument in process.cmdline()):
                    self.worker_bytes = max(self.worker_bytes, peak_bytes(process))
            except (psutil.Error, OSError):
                continue  # it has ended in the meantime

    def end(self) -> None:
        """Kill the first process, and wait for the others. Terminate those that stay, and kill them if that fails."""
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
    """Return the largest resident set of a process so far, as the kernel counts it."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
