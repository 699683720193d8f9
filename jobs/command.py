"""Run a job: read its settings, do its work, and turn a failure into one line and an exit status."""

import os
import sys
from collections.abc import Callable, Sequence

from cnnlib.errors import INTERRUPTED, SparkcnnError
from jobs.catalogue import Job, SettingsClass
from jobs.settings import parse_settings


def run_job(job: Job[SettingsClass], arguments: Sequence[str] | None = None) -> int:
    """Run a job with command line arguments, by default those of this process, and return its exit status.

    `cnnlib.errors` lists the exit statuses. Exceptions other than SparkcnnError are bugs and pass through.
    """
    given = sys.argv[1:] if arguments is None else arguments
    return _exit_status(
        job.name, lambda: job.run(parse_settings(job.name, job.settings, given, config_file=job.config_file))
    )


def exit_without_waiting(job: str, work: Callable[[], None]) -> None:
    """End this process with the exit status of `work`, without waiting for threads that never end."""
    status = _exit_status(job, work)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _exit_status(job: str, work: Callable[[], None]) -> int:
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
