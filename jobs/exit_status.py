"""Turn the failure of a job into one line and an exit status."""

import os
import sys
from collections.abc import Callable

from cnnlib.errors import INTERRUPTED, SparkcnnError


def exit_without_waiting(job: str, work: Callable[[], None]) -> None:
    """End this process with the exit status of `work`, without waiting for threads that never end."""
    status = exit_status(job, work)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def exit_status(job: str, work: Callable[[], None]) -> int:
    """Do the work of a job and return its exit status. Prints one line if it failed.

    Exceptions other than SparkcnnError and KeyboardInterrupt are bugs and pass through.
    """
    try:
        work()
    except SparkcnnError as error:
        print(f"sparkcnn {job}: {' '.join(error.message.split())}", file=sys.stderr)
        for line in error.quoted:
            print(f"  | {line}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print(f"sparkcnn {job}: interrupted; nothing unfinished was published", file=sys.stderr)
        return INTERRUPTED
    return 0
