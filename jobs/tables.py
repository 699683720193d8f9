"""The tables that jobs end with."""

from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.table import Table

if TYPE_CHECKING:  # these import Arrow or TensorFlow, which doctor must be able to do without
    from cnnlib.config import TrainSettings
    from cnnlib.imageset import ImageSet
    from cnnlib.predictions import Predictions
    from pipelines.demo import DemoResult
    from pipelines.train import TrainedModel


def show(*tables: RenderableType) -> None:
    """Print to standard output, as wide as is needed where that is no terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(*tables, sep="\n")


def image_set_table(image_set: "ImageSet") -> Table:
    """Every image accounted for, and what the set is."""
    table = pairs_table("image set")
    _add_image_set(table, image_set)
    table.add_row("fingerprint", image_set.fingerprint)
    table.add_row("path", image_set.folder.uri)
    return table


def training_table(trained: "TrainedModel", settings: "TrainSettings") -> Table:
    """How training went, and what was registered."""
    table = pairs_table("training")
    _add_training(table, trained)
    _add_registered(table, trained, settings)
    return table


def predictions_table(predictions: "Predictions") -> Table:
    """Every row accounted for."""
    table = pairs_table("predictions")
    _add_predictions(table, predictions)
    table.add_row("path", predictions.path)
    return table


def demo_table(result: "DemoResult") -> Table:
    """The whole pipeline on one page."""
    table = pairs_table("sparkcnn demo")
    _add_image_set(table, result.image_set)
    table.add_section()
    _add_training(table, result.trained)
    table.add_section()
    _add_predictions(table, result.predictions)
    table.add_row("test accuracy", f"{result.test_accuracy:.4f}")
    table.add_section()
    for stage in result.stages:
        table.add_row(stage.name, f"{stage.seconds:.1f} s, {stage.images / stage.seconds:,.0f} images/s")
    table.add_section()
    _add_registered(table, result.trained, result.settings.train)
    return table


def pairs_table(title: str) -> Table:
    """A table of names and values, still empty."""
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _add_image_set(table: Table, image_set: "ImageSet") -> None:
    counts = image_set.counts
    table.add_row(
        "images",
        f"{counts.found:,} found = {counts.kept:,} kept + {counts.duplicate:,} duplicate "
        f"+ {counts.rejected:,} rejected",
    )
    table.add_row("splits", ", ".join(f"{split.rows:,} {name}" for name, split in image_set.splits.items()))


def _add_training(table: Table, trained: "TrainedModel") -> None:
    epochs = len(trained.history["val_accuracy"])
    best = trained.history["val_accuracy"][trained.best_epoch - 1]
    table.add_row("epochs", f"{epochs}, best is {trained.best_epoch}")
    table.add_row("val accuracy", f"{best:.4f}")


def _add_registered(table: Table, trained: "TrainedModel", settings: "TrainSettings") -> None:
    register = settings.register
    if trained.version is None:
        table.add_row("model", f"{trained.model_uri} (not registered)")
    else:
        alias = f", alias {register.alias}" if register.alias else ""
        table.add_row("model", f"{register.name} version {trained.version}{alias}")
    if trained.ui_command:
        table.add_row("MLflow UI", trained.ui_command)
    table.add_row("run", trained.run_url)


def _add_predictions(table: Table, predictions: "Predictions") -> None:
    counts = predictions.counts
    failed = ", ".join(f"{count:,} {code}" for code, count in predictions.failed_by_code.items())
    table.add_row(
        "scored",
        f"{counts['rows']:,} rows = {counts['scored']:,} scored + {counts['failed']:,} failed"
        + (f" ({failed})" if failed else ""),
    )
    version = f" version {predictions.model_version}" if predictions.model_version else ""
    table.add_row("scored with", f"{predictions.model_name}{version}")
