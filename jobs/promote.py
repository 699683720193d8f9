"""Let a version of a registered model become champion, if it passes every gate."""

import sys
from collections.abc import Sequence

from cnnlib.config import PromoteSettings
from jobs.command import run_job
from jobs.evaluation_tables import gates_table, promotion_table
from jobs.tables import show
from pipelines.evaluate.promote import promote, roll_back
from pipelines.spark.session import job_session


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job and give its exit status."""
    return run_job("promote", PromoteSettings, _run, arguments)


def _run(settings: PromoteSettings) -> None:
    if settings.rollback:
        show(promotion_table(roll_back(settings)))
        return
    with job_session("sparkcnn promote") as spark:
        promotion = promote(spark, settings)
    show(gates_table(promotion.gates), promotion_table(promotion))
    promotion.check()


if __name__ == "__main__":
    sys.exit(main())
