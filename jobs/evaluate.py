"""Evaluate a registered model on an image set: metrics, figures and a report in MLflow."""

import sys
from collections.abc import Sequence

from cnnlib.config import EvaluateSettings
from jobs.command import run_job
from jobs.evaluation_tables import classes_table, evaluation_table
from jobs.tables import show
from pipelines.evaluate.flow import evaluate
from pipelines.spark.session import job_session


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job and give its exit status."""
    return run_job("evaluate", EvaluateSettings, _run, arguments)


def _run(settings: EvaluateSettings) -> None:
    with job_session("sparkcnn evaluate") as spark:
        evaluated = evaluate(spark, settings)
    show(classes_table(evaluated.evaluation), evaluation_table(evaluated))


if __name__ == "__main__":
    sys.exit(main())
