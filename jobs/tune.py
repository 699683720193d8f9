"""Search for the best settings of a training: Optuna's trials as Spark tasks, in MLflow."""

import sys
from collections.abc import Sequence

from cnnlib.config import TuneSettings
from cnnlib.quiet import import_tensorflow_quietly
from jobs.command import run_job
from jobs.experiment_tables import trials_table, tuned_table
from jobs.tables import show
from pipelines.spark.session import job_session


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job and give its exit status."""
    return run_job("tune", TuneSettings, _run, arguments)


def _run(settings: TuneSettings) -> None:
    import_tensorflow_quietly()
    from pipelines.tune.flow import tune

    with job_session("sparkcnn tune") as spark:
        tuned = tune(spark, settings)
    show(trials_table(tuned), tuned_table(tuned))


if __name__ == "__main__":
    sys.exit(main())
