"""A rank's process as its task sees it: started fresh, watched, never left behind.

A process can connect to others only once, at its start, and Spark uses its Python workers again: so each rank is a
process of its own. It holds the other end of its standard input and ends itself when that closes, so it outlives
neither a task that was killed nor a driver.
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
# Between asking a process to end and ending it.
GRACE_SECONDS = 3.0


class RankProcess:
    """Runs `python -m module` in a folder, with `spec` as the first line of its standard input, and ends with `with`.

    Its temporary files lie in the folder too, so that they go with it however the process ends.
    With `echo`, all that it writes goes to this process's standard error too, which is an executor's log.
    `pass_fds` are file descriptors that it keeps.
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
        # What this process can import, that one can: a cluster's workers find the project in a zip, say.
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
            pass  # it has ended already; `wait` tells how

    def __enter__(self) -> "RankProcess":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.end()

    def wait(self) -> int:
        """Wait for the end, and give the exit status, -9 for an end by signal 9."""
        status = self._process.wait()
        # A process that it has started itself, and left, may hold its output open.
        self._reader.join(GRACE_SECONDS)
        return status

    def end(self) -> None:
        """Have the process end now; it may be gone already."""
        self._process.terminate()
        try:
            self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()

    @property
    def last_lines(self) -> list[str]:
        """The last lines that it wrote to standard output and error."""
        return list(self._lines)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            text = line.decode("utf-8", "replace").rstrip()
            self._lines.append(text)
            if self._echo:
                print(text, file=sys.stderr, flush=True)


def how_it_ended(status: int) -> str:
    """An exit status in words.

    >>> how_it_ended(-9), how_it_ended(1)
    ('was killed by SIGKILL', 'ended with exit status 1')
    """
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with exit status {status}"


def end_with_standard_input() -> None:
    """Called in the rank's process: end it as soon as whoever started it is gone."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os._exit(1)

    threading.Thread(target=watch, name="sparkcnn-failure-signal", daemon=True).start()


def read_spec() -> dict[str, Any]:
    """Called in the rank's process: the first line of standard input. Reads no byte beyond it."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            os._exit(1)
        line += byte
    return json.loads(line)
