"""The command `sparkcnn NAME …`."""

import os
import sys

from cnnlib.errors import ConfigError, did_you_mean
from jobs.catalogue import JOBS
from jobs.command import run_job


def command() -> None:
    """Run the command `sparkcnn`, or a wheel task of Databricks: end with SystemExit only if the job did not succeed.

    Databricks loads the entry point and calls it. It ignores the returned value, and every SystemExit is a failure.
    """
    try:
        status: int | str | None = main()
    except SystemExit as ended:  # for example by --help
        status = ended.code
    if status:
        sys.exit(status)


def main() -> int:
    """Run the job that the first argument names, and return its exit status."""
    try:
        status = _run()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of a pipe, such as head, has ended. Python would flush the output again at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _run() -> int:
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(_help())
        return 0
    if name not in JOBS:
        hint = did_you_mean(name, JOBS, f"take one of {', '.join(JOBS)}")
        print(f"sparkcnn: {name} is not a job; {hint}", file=sys.stderr)
        return ConfigError.exit_status
    return run_job(JOBS[name], arguments)


def _help() -> str:
    return "\n".join(
        [
            "usage: sparkcnn NAME [--config FILE] [--section.setting VALUE …]",
            "",
            *(f"  {job.name:<8} {job.summary}" for job in JOBS.values()),
            "",
            "sparkcnn NAME --help explains every setting of a job, with its default.",
        ]
    )


if __name__ == "__main__":
    command()
