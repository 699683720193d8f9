"""The command in a pipe whose reader ends early."""

import subprocess
import sys


def test_closed_pipe_is_no_traceback() -> None:
    command = [sys.executable, "-c", "import sys; from jobs.sparkcnn import main; sys.exit(main())", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait(60) == 1
