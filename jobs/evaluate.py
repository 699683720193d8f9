"""`spark-submit jobs/evaluate.py`: the same as `sparkcnn evaluate`."""

import sys
from functools import partial

from jobs.catalogue import JOBS
from jobs.command import run_job

main = partial(run_job, JOBS["evaluate"])

if __name__ == "__main__":
    sys.exit(main())
