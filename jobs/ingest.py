"""`spark-submit jobs/ingest.py`: the same as `sparkcnn ingest`."""

import sys
from functools import partial

from jobs.catalogue import JOBS
from jobs.command import run_job

main = partial(run_job, JOBS["ingest"])

if __name__ == "__main__":
    sys.exit(main())
