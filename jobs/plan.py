"""Tell what training on many workers would bring, from a step's time, the model's size and the network."""

import sys
from collections.abc import Sequence

from cnnlib.config import PlanSettings
from cnnlib.quiet import import_tensorflow_quietly
from jobs.command import run_job
from jobs.preflight_tables import show_plan


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job and give its exit status."""
    return run_job("plan", PlanSettings, _run, arguments)


def _run(settings: PlanSettings) -> None:
    import_tensorflow_quietly()
    from pipelines.doctor.plan import plan_scaling

    show_plan(plan_scaling(settings))


if __name__ == "__main__":
    sys.exit(main())
