"""`spark-submit jobs/score.py`: the same as `sparkcnn score`."""

import sys
from functools import partial

from jobs.catalogue import JOBS
from jobs.command import run_job

main = partial(run_job, JOBS["score"])

if __name__ == "__main__":
    sys.exit(main())
