"""`spark-submit jobs/compare.py`: the same as `sparkcnn compare`."""

import sys
from functools import partial

from jobs.catalogue import JOBS
from jobs.command import run_job

main = partial(run_job, JOBS["compare"])

if __name__ == "__main__":
    sys.exit(main())
