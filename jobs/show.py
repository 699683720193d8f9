"""`spark-submit jobs/show.py`: the same as `sparkcnn show`."""

import sys
from functools import partial

from jobs.catalogue import JOBS
from jobs.command import run_job

main = partial(run_job, JOBS["show"])

if __name__ == "__main__":
    sys.exit(main())
