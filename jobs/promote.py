"""`spark-submit jobs/promote.py`: the same as `sparkcnn promote`."""

import sys
from functools import partial

from jobs.catalogue import JOBS
from jobs.command import run_job

main = partial(run_job, JOBS["promote"])

if __name__ == "__main__":
    sys.exit(main())
