"""Write a picture of training images before and after augmentation."""

import sys
from collections.abc import Sequence

from cnnlib.config import ShowSettings
from cnnlib.quiet import import_tensorflow_quietly
from jobs.command import run_job


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job and give its exit status."""
    return run_job("show", ShowSettings, _run, arguments)


def _run(settings: ShowSettings) -> None:
    import_tensorflow_quietly()
    from pipelines.show import show_batch

    print(f"written: {show_batch(settings)}")


if __name__ == "__main__":
    sys.exit(main())
