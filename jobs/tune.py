"""`spark-submit jobs/tune.py`: the same as `sparkcnn tune`."""

import sys
from functools import partial

from jobs.catalogue import JOBS
from jobs.command import run_job

main = partial(run_job, JOBS["tune"])

if __name__ == "__main__":
    sys.exit(main())
