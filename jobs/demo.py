"""Run the whole pipeline on MNIST: ingest, train, score, and a table of what came out."""

import sys
from collections.abc import Sequence

from cnnlib.config import DemoSettings
from cnnlib.quiet import import_tensorflow_quietly
from jobs.command import run_job
from jobs.tables import demo_table, show
from pipelines.spark.session import job_session


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job and give its exit status."""
    return run_job("demo", DemoSettings, _run, arguments, config_file="demo.yaml")


def _run(settings: DemoSettings) -> None:
    import_tensorflow_quietly()
    from pipelines.demo import demo

    with job_session("sparkcnn demo") as spark:
        result = demo(spark, settings)
    show(demo_table(result))
    result.check(settings.min_test_accuracy)


if __name__ == "__main__":
    sys.exit(main())
