"""Make an image set of a collection of images."""

import sys
from collections.abc import Sequence

from cnnlib.config import IngestSettings
from jobs.command import run_job
from jobs.tables import image_set_table, show
from pipelines.ingest.flow import ingest
from pipelines.spark.session import job_session


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job and give its exit status."""
    return run_job("ingest", IngestSettings, _run, arguments)


def _run(settings: IngestSettings) -> None:
    with job_session("sparkcnn ingest") as spark:
        show(image_set_table(ingest(spark, settings)))


if __name__ == "__main__":
    sys.exit(main())
