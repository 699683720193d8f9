"""`spark-submit jobs/doctor.py`: the same as `sparkcnn doctor`."""

import sys
from functools import partial

from jobs.catalogue import JOBS
from jobs.command import run_job

main = partial(run_job, JOBS["doctor"])

if __name__ == "__main__":
    sys.exit(main())
