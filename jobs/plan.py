"""`spark-submit jobs/plan.py`: the same as `sparkcnn plan`."""

import sys
from functools import partial

from jobs.catalogue import JOBS
from jobs.command import run_job

main = partial(run_job, JOBS["plan"])

if __name__ == "__main__":
    sys.exit(main())
