"""`spark-submit jobs/models.py`: the same as `sparkcnn models`."""

import sys
from functools import partial

from jobs.catalogue import JOBS
from jobs.command import run_job

main = partial(run_job, JOBS["models"])

if __name__ == "__main__":
    sys.exit(main())
