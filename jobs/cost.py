"""`spark-submit jobs/cost.py`: the same as `sparkcnn cost`."""

import sys
from functools import partial

from jobs.catalogue import JOBS
from jobs.command import run_job

main = partial(run_job, JOBS["cost"])

if __name__ == "__main__":
    sys.exit(main())
