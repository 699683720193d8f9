"""Train a CNN on an image set, track it in MLflow and register the best epoch."""

import sys
from collections.abc import Sequence

from cnnlib.config import TrainSettings
from cnnlib.quiet import import_tensorflow_quietly
from jobs.command import run_job
from jobs.tables import rate_table, show, training_table
from pipelines.spark.session import job_session


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job and give its exit status."""
    return run_job("train", TrainSettings, _run, arguments)


def _run(settings: TrainSettings) -> None:
    import_tensorflow_quietly()

    with job_session("sparkcnn train") as spark:
        if settings.train.find_rate:
            from pipelines.train.find_rate import find_rate

            show(rate_table(find_rate(spark, settings)))
        else:
            from pipelines.train.flow import train

            show(training_table(train(spark, settings), settings))


if __name__ == "__main__":
    sys.exit(main())
