"""Check all that a training needs, before it: versions, Spark, network, GPUs, image set, MLflow and paths."""

import os
import sys
from collections.abc import Sequence

from rich.console import Console

from cnnlib.config import DoctorSettings
from jobs.command import run_job
from jobs.preflight_tables import findings_table
from jobs.tables import show
from pipelines.doctor.flow import examine


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job and give its exit status: 0 where no check found a problem, else 2."""
    unfinished: list[str] = []

    def run(settings: DoctorSettings) -> None:
        with Console(stderr=True).status("checking …") as status:
            examination = examine(settings, on_check=lambda what: status.update(f"checking {what} …"))
        show(findings_table(examination.findings))
        unfinished.extend(examination.unfinished)
        examination.refuse_problems()

    status = run_job("doctor", DoctorSettings, run, arguments)
    if unfinished:
        # Threads that wait for ever would hold the exit up.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


if __name__ == "__main__":
    sys.exit(main())
