"""`spark-submit jobs/demo.py`: the same as `sparkcnn demo`."""

import sys
from functools import partial

from jobs.catalogue import JOBS
from jobs.command import run_job

main = partial(run_job, JOBS["demo"])

if __name__ == "__main__":
    sys.exit(main())
