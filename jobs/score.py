"""Score images with a registered model: a prediction for every row."""

import sys
from collections.abc import Sequence

from cnnlib.config import ScoreSettings
from cnnlib.predictions.contract import IncompleteError, Predictions
from jobs.command import run_job
from jobs.tables import predictions_table, show, stability_table
from pipelines.score.flow import score
from pipelines.spark.session import job_session


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job and give its exit status."""
    return run_job("score", ScoreSettings, _run, arguments)


def _run(settings: ScoreSettings) -> None:
    try:
        with job_session("sparkcnn score") as spark:
            _show(score(spark, settings))
    except IncompleteError as error:
        _show(error.predictions)
        raise


def _show(predictions: Predictions) -> None:
    if predictions.stability is not None:
        show(stability_table(predictions.stability))
    show(predictions_table(predictions))


if __name__ == "__main__":
    sys.exit(main())
