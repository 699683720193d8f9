"""Train with several values of one setting, a few seeds each, and draw their curves."""

import sys
from collections.abc import Sequence

from cnnlib.config import CompareSettings
from cnnlib.quiet import import_tensorflow_quietly
from jobs.command import run_job
from jobs.experiment_tables import compared_table, comparison_table
from jobs.tables import show
from pipelines.spark.session import job_session


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job and give its exit status."""
    return run_job("compare", CompareSettings, _run, arguments)


def _run(settings: CompareSettings) -> None:
    import_tensorflow_quietly()
    from pipelines.tune.compare import compare

    with job_session("sparkcnn compare") as spark:
        compared = compare(spark, settings)
    show(comparison_table(compared.comparison), compared_table(compared))


if __name__ == "__main__":
    sys.exit(main())
