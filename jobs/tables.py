"""The tables that jobs end with."""

from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.table import Table

if TYPE_CHECKING:  # these import Arrow or TensorFlow, which doctor must be able to do without
    from collections.abc import Mapping, Sequence

    from cnnlib.config import TrainSettings
    from cnnlib.image_set.contract import ImageSet
    from cnnlib.predictions.contract import Predictions
    from cnnlib.predictions.drift import Stability
    from pipelines.demo import DemoResult
    from pipelines.train.find_rate import FoundRate
    from pipelines.train.flow import TrainedModel

# Of a thousand classes those that moved most are enough.
CLASSES_SHOWN = 10


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
    train = image_set.splits["train"]
    table.add_row("classes", f"{len(image_set.classes):,}{_imbalance(train.class_counts)}")
    table.add_row("row groups", f"{train.row_groups:,} in train")
    table.add_row("fingerprint", image_set.fingerprint)
    table.add_row("path", image_set.folder.uri)
    table.add_row("report", f"{image_set.folder.uri}/report.html")
    return table


def training_table(trained: "TrainedModel", settings: "TrainSettings") -> Table:
    """How training went, and what was registered."""
    table = pairs_table("training")
    _add_training(table, trained)
    _add_registered(table, trained, settings)
    return table


def rate_table(found: "FoundRate") -> Table:
    """The learning rate that a sweep suggests."""
    table = pairs_table("learning rate")
    rates = found.sweep.rates
    table.add_row("suggested", f"--optimizer.learning_rate {found.suggested:.2g}")
    table.add_row("tried", f"{rates[0]:.1e} to {rates[-1]:.1e}, a step each")
    table.add_row("figure", found.figure)
    table.add_row("run", found.run_url)
    return table


def predictions_table(predictions: "Predictions") -> Table:
    """Every row accounted for."""
    table = pairs_table("predictions")
    _add_predictions(table, predictions)
    table.add_row("run", predictions.mlflow_run)
    table.add_row("path", predictions.path)
    return table


def stability_table(stability: "Stability") -> Table:
    """Predicted classes against the training set's: those that have moved most, and what it all comes to."""
    table = Table(title="predicted against trained on", title_justify="left")
    shown = sorted(range(len(stability.classes)), key=lambda label: -stability.terms[label])[:CLASSES_SHOWN]
    table.add_column("class", overflow="fold")
    table.add_column("trained on", justify="right")
    table.add_column("predicted", justify="right")
    table.add_column("stability index", justify="right")
    for label in shown:
        expected, predicted = stability.expected[label], stability.predicted[label]
        table.add_row(stability.classes[label], f"{expected:.1%}", f"{predicted:.1%}", f"{stability.terms[label]:.4f}")
    confidence = "not known" if stability.confidence is None else f"{stability.confidence:.4f}"
    table.add_section()
    table.add_row(f"all {len(stability.classes):,} classes", "", "", f"{stability.index:.4f}")
    table.add_row("confidence", "", "", confidence)
    table.caption_justify = "left"
    if stability.warning:
        table.caption = f"warning: {stability.warning}"
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
        f"+ {counts.rejected:,} rejected" + by_code(image_set.rejected_by_code),
    )
    if image_set.conflicting:
        kept = image_set.settings["split"]["conflicts"] == "keep"
        table.add_row(
            "conflicts",
            f"{image_set.conflicting:,} images with the pixels of one of another class, "
            + ("one a class is kept" if kept else "all left out, counted as duplicate"),
        )
    table.add_row("splits", ", ".join(f"{split.rows:,} {name}" for name, split in image_set.splits.items()))


def _imbalance(class_counts: "Sequence[int]") -> str:
    """How unequal the classes are, in words.

    >>> _imbalance([30, 10]), _imbalance([]), _imbalance([5, 0])
    ('; the largest has 3.0 times the train images of the smallest', '', '; one has no train images')
    """
    if not class_counts:
        return ""
    if not min(class_counts):
        return "; one has no train images" if class_counts.count(0) == 1 else "; some have no train images"
    return f"; the largest has {max(class_counts) / min(class_counts):.1f} times the train images of the smallest"


def by_code(counts: "Mapping[str, int]") -> str:
    """Counts by code, in parentheses.

    >>> by_code({"truncated": 1200, "empty_file": 1}), by_code({})
    (' (1,200 truncated, 1 empty_file)', '')
    """
    return f" ({', '.join(f'{count:,} {code}' for code, count in counts.items())})" if counts else ""


def _add_training(table: Table, trained: "TrainedModel") -> None:
    epochs = len(trained.history["val_accuracy"])
    best = trained.history["val_accuracy"][trained.best_epoch - 1]
    table.add_row("epochs", f"{epochs}, best is {trained.best_epoch}")
    table.add_row("val accuracy", f"{best:.4f}")
    for words in trained.warnings:
        table.add_row("warning", words)


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
    table.add_row(
        "scored",
        f"{counts['rows']:,} rows = {counts['scored']:,} scored + {counts['failed']:,} failed"
        + by_code(predictions.failed_by_code)
        + (f" + {counts['skipped']:,} skipped (predicted before)" if "skipped" in counts else ""),
    )
    table.add_row("speed", f"{predictions.images_per_second:,.0f} images/s")
    table.add_row("scored with", str(predictions.model))
