"""Run a job: read its settings, then do its work."""

import sys
from collections.abc import Sequence

from cnnlib.garbage import collect_garbage_rarely
from jobs.catalogue import Job, SettingsClass
from jobs.exit_status import exit_status
from jobs.settings import parse_settings


def run_job(job: Job[SettingsClass], arguments: Sequence[str] | None = None) -> int:
    """Run a job with command line arguments, by default those of this process, and return its exit status.

    `cnnlib.errors` lists the exit statuses. Exceptions other than SparkcnnError are bugs and pass through.
    """
    collect_garbage_rarely()
    given = sys.argv[1:] if arguments is None else arguments
    return exit_status(
        job.name, lambda: job.run(parse_settings(job.name, job.settings, given, config_file=job.config_file))
    )
