"""`spark-submit jobs/train.py`: the same as `sparkcnn train`."""

import sys
from functools import partial

from jobs.catalogue import JOBS
from jobs.command import run_job

main = partial(run_job, JOBS["train"])

if __name__ == "__main__":
    sys.exit(main())
