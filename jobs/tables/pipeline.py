"""The tables of ingest, train, score, demo and imagenet."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from cnnlib.sources.left_out import in_words
from jobs.tables.layout import CLASSES_SHOWN, by_code, pairs_table

if TYPE_CHECKING:  # these import Arrow or TensorFlow
    from cnnlib.config import RegisterSettings, TrainSettings
    from cnnlib.image_set.contract import ImageSet
    from cnnlib.predictions.contract import Predictions
    from cnnlib.predictions.drift import Drift
    from pipelines.demo import DemoResult
    from pipelines.train.find_rate import FoundRate
    from pipelines.train.flow import TrainedModel
    from pipelines.train.imagenet import ImagenetModel


def image_set_table(image_set: "ImageSet") -> Table:
    """Return the number of images kept and left out, and a description of the image set."""
    table = pairs_table("image set")
    _add_image_set(table, image_set)
    train = image_set.splits["train"]
    table.add_row("classes", f"{len(image_set.classes):,}{_imbalance(train.class_counts)}")
    if image_set.classes:
        table.add_row("", _class_names(image_set))
    table.add_row("row groups", f"{train.row_groups:,} in train")
    table.add_row("fingerprint", image_set.fingerprint)
    table.add_row("path", image_set.folder.uri)
    table.add_row("report", f"{image_set.folder.uri}/report.html")
    return table


def training_table(trained: "TrainedModel", settings: "TrainSettings") -> Table:
    """Return the result of a training and the registered version."""
    table = pairs_table("training")
    _add_training(table, trained)
    _add_registered(table, trained, settings)
    return table


def rate_table(found: "FoundRate") -> Table:
    """Return the learning rate that a sweep suggests."""
    table = pairs_table("learning rate")
    rates = found.sweep.rates
    table.add_row("suggested", f"--optimizer.learning_rate {found.suggested:.2g}")
    table.add_row("tried", f"{rates[0]:.1e} to {rates[-1]:.1e}, one step each")
    table.add_row("figure", found.figure)
    table.add_row("run", found.run_url)
    return table


def scoring_tables(predictions: "Predictions") -> list[Table]:
    """Return the tables of a scoring: the drift of the classes if it is known, and the predictions."""
    drift = [] if predictions.drift is None else [stability_table(predictions.drift)]
    return [*drift, predictions_table(predictions)]


def predictions_table(predictions: "Predictions") -> Table:
    """Return the number of rows scored and failed, and where the predictions are."""
    table = pairs_table("predictions")
    _add_predictions(table, predictions)
    table.add_row("run", predictions.mlflow_run)
    table.add_row("path", predictions.path)
    return table


def stability_table(stability: "Drift") -> Table:
    """Return how far the predictions have moved from the training set: the classes that moved most, and all."""
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
    warning = f"warning: {stability.warning}" if stability.warning else None
    table.caption = "\n".join(filter(None, [warning, stability.note])) or None
    return table


def demo_table(result: "DemoResult") -> Table:
    """Return the results of all stages in one table."""
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


def imagenet_table(registered: "ImagenetModel", settings: "RegisterSettings") -> Table:
    """Return the registered version of a network with ImageNet's classes."""
    table = pairs_table("imagenet")
    table.add_row("model", _version(registered.name, registered.version, settings.alias))
    table.add_row("classes", f"{registered.classes:,}")
    table.add_row("run", registered.run_url)
    return table


def _add_image_set(table: Table, image_set: "ImageSet") -> None:
    counts = image_set.counts
    table.add_row(
        "images",
        f"{counts.found:,} found = {counts.kept:,} kept + {counts.duplicate:,} duplicate "
        f"+ {counts.rejected:,} rejected" + by_code(image_set.rejected_by_code),
    )
    if image_set.left_out:
        table.add_row("left out", in_words(image_set.left_out))
    if image_set.conflicting:
        kept = image_set.settings["split"]["conflicts"] == "keep"
        table.add_row(
            "conflicts",
            f"{image_set.conflicting:,} images with the same pixels as an image of another class, "
            + ("one per class is kept" if kept else "all left out, counted as duplicate"),
        )
    table.add_row("splits", ", ".join(f"{split.rows:,} {name}" for name, split in image_set.splits.items()))


def _class_names(image_set: "ImageSet") -> str:
    """Return the names of the first classes in label order, each with the number of its images in all splits."""
    totals = [sum(counts) for counts in zip(*(split.class_counts for split in image_set.splits.values()), strict=True)]
    named = [f"{name} {total:,}" for name, total in zip(image_set.classes, totals, strict=True)][:CLASSES_SHOWN]
    more = len(image_set.classes) - len(named)
    return ", ".join(named) + (f" and {more:,} more" if more > 0 else "")


def _imbalance(class_counts: Sequence[int]) -> str:
    """Return in words how unequal the classes are.

    >>> _imbalance([30, 10]), _imbalance([]), _imbalance([5, 0])
    ('; the largest has 3.0 times the train images of the smallest', '', '; one has no train images')
    """
    if not class_counts:
        return ""
    if not min(class_counts):
        return "; one has no train images" if class_counts.count(0) == 1 else "; some have no train images"
    return f"; the largest has {max(class_counts) / min(class_counts):.1f} times the train images of the smallest"


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
        table.add_row("model", _version(register.name, trained.version, register.alias))
    if trained.ui_command:
        table.add_row("MLflow UI", trained.ui_command)
    table.add_row("run", trained.run_url)


def _version(name: str | None, version: str, alias: str | None) -> str:
    return f"{name} version {version}" + (f", alias {alias}" if alias else "")


def _add_predictions(table: Table, predictions: "Predictions") -> None:
    counts = predictions.counts
    table.add_row(
        "scored",
        f"{counts['rows']:,} rows = {counts['scored']:,} scored + {counts['failed']:,} failed"
        + by_code(predictions.failed_by_code)
        + (f" + {counts['skipped']:,} skipped (have a row already)" if "skipped" in counts else ""),
    )
    if predictions.left_out:
        table.add_row("left out", in_words(predictions.left_out))
    table.add_row("speed", f"{predictions.images_per_second:,.0f} images/s")
    table.add_row("scored with", str(predictions.model))
