"""Register a network of keras.applications with ImageNet's weights and its 1,000 classes, for score."""

import sys
from collections.abc import Sequence

from cnnlib.config import ImagenetSettings
from cnnlib.quiet import import_tensorflow_quietly
from jobs.command import run_job
from jobs.tables import pairs_table, show


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job and give its exit status."""
    return run_job("imagenet", ImagenetSettings, _run, arguments)


def _run(settings: ImagenetSettings) -> None:
    import_tensorflow_quietly()
    from pipelines.train.imagenet import register_imagenet

    registered = register_imagenet(settings)
    table = pairs_table("imagenet")
    alias = f", alias {settings.register.alias}" if settings.register.alias else ""
    table.add_row("model", f"{registered.name} version {registered.version}{alias}")
    table.add_row("classes", f"{registered.classes:,}")
    table.add_row("run", registered.run_url)
    show(table)


if __name__ == "__main__":
    sys.exit(main())
