"""What every job's entry point does: settings in, work, and a documented exit status with one line for a failure."""

import sys
from collections.abc import Callable, Sequence

from cnnlib.errors import INTERRUPTED, SparkcnnError
from jobs.settings import SettingsClass, parse_settings


def run_job(
    job: str,
    kind: type[SettingsClass],
    work: Callable[[SettingsClass], None],
    arguments: Sequence[str] | None,
    *,
    config_file: str | None = None,
) -> int:
    """Run a job and give its exit status; `cnnlib.errors` lists them. Other exceptions are faults, and pass."""
    try:
        work(parse_settings(job, kind, sys.argv[1:] if arguments is None else arguments, config_file=config_file))
    except SparkcnnError as error:
        print(f"sparkcnn {job}: {' '.join(error.message.split())}", file=sys.stderr)
        for line in error.quoted:
            print(f"  | {line}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print(f"sparkcnn {job}: interrupted; nothing unfinished was published", file=sys.stderr)
        return INTERRUPTED
    return 0
