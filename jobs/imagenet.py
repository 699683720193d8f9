"""`spark-submit jobs/imagenet.py`: the same as `sparkcnn imagenet`."""

import sys
from functools import partial

from jobs.catalogue import JOBS
from jobs.command import run_job

main = partial(run_job, JOBS["imagenet"])

if __name__ == "__main__":
    sys.exit(main())
