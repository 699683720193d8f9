"""The process of a rank: started by its task, watched, and never left behind.

TensorFlow can connect a process to others only once, at its start, and Spark reuses its Python workers. So each rank is
a new process. The task holds the other end of the rank's standard input. The rank ends itself when that closes, so it
does not outlive a killed task or driver.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LAST_LINES = 20
# Time between asking a process to end and killing it.
GRACE_SECONDS = 3.0


class RankProcess:
    """Run `python -m module` in a folder. The process ends at the latest with the `with` block.

    - `spec` is sent as JSON in the first line of the process's standard input.
    - `environment` has variables to add to those of this process.
    - `folder` also holds its temporary files, so they are removed with it, however the process ends.
    - `echo` copies the process's output to this process's standard error, which is the executor's log.
    - `pass_fds` are file descriptors that the process inherits.
    """

    def __init__(
        self,
        module: str,
        spec: Mapping[str, Any],
        environment: Mapping[str, str],
        folder: Path,
        *,
        echo: bool,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self._echo = echo
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        # It can import whatever this process can. For example, the workers of a cluster may find the project in a zip.
        paths = os.pathsep.join(os.path.abspath(path) for path in sys.path if path)
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                **environment,
                "PYTHONPATH": paths,
                "PYTHONUNBUFFERED": "1",
                "TMPDIR": str(folder),
            },
            cwd=folder,
            pass_fds=pass_fds,
        )
        self._reader = threading.Thread(target=self._read, name="sparkcnn-rank-output", daemon=True)
        self._reader.start()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(dict(spec)).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has already ended; `wait` gives the status

    def __enter__(self) -> "RankProcess":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.end()

    def wait(self) -> int:
        """Wait for the end, and return the exit status. After an end by signal 9 it is -9."""
        status = self._process.wait()
        # A process that it started and left behind may hold its output open.
        self._reader.join(GRACE_SECONDS)
        return status

    def end(self) -> None:
        """End the process now. It may already be gone."""
        self._process.terminate()
        try:
            self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()

    @property
    def last_lines(self) -> list[str]:
        """The last lines that the process wrote to standard output and error."""
        return list(self._lines)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            text = line.decode("utf-8", "replace").rstrip()
            self._lines.append(text)
            if self._echo:
                print(text, file=sys.stderr, flush=True)


def describe_exit(status: int) -> str:
    """Describe an exit status in words.

    >>> describe_exit(-9), describe_exit(1)
    ('was killed by SIGKILL', 'ended with exit status 1')
    """
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with exit status {status}"


def end_with_standard_input() -> None:
    """In the rank's process: end this process as soon as the process that started it is gone."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os._exit(1)

    threading.Thread(target=watch, name="sparkcnn-standard-input", daemon=True).start()


def read_spec() -> dict[str, Any]:
    """In the rank's process: read the spec from the first line of standard input, and no byte beyond it."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            os._exit(1)
        line += byte
    return json.loads(line)
