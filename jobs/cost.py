"""Tell what a model costs: parameters, multiply-adds and memory by layer, and the time of an epoch on a device."""

import sys
from collections.abc import Sequence

from cnnlib.config import CostSettings
from cnnlib.quiet import import_tensorflow_quietly
from jobs.command import run_job
from jobs.cost_tables import show_cost


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job and give its exit status."""
    return run_job("cost", CostSettings, _run, arguments)


def _run(settings: CostSettings) -> None:
    import_tensorflow_quietly()
    from pipelines.cost import cost_of

    show_cost(cost_of(settings), settings)


if __name__ == "__main__":
    sys.exit(main())
