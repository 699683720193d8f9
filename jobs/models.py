"""List the architectures with what they cost, and with --measure how fast they are on this machine."""

import sys
from collections.abc import Sequence

from cnnlib.config import ModelListSettings
from cnnlib.quiet import import_tensorflow_quietly
from jobs.command import run_job
from jobs.cost_tables import architectures_table
from jobs.tables import show


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job and give its exit status."""
    return run_job("models", ModelListSettings, _run, arguments)


def _run(settings: ModelListSettings) -> None:
    import_tensorflow_quietly()
    from pipelines.cost import architecture_costs

    # Slow where they are measured: each as soon as it is known would be no table.
    show(architectures_table(list(architecture_costs(settings))))


if __name__ == "__main__":
    sys.exit(main())
