"""The tables of evaluate and promote."""

from typing import TYPE_CHECKING

from rich.table import Table

from jobs.tables.layout import CLASSES_SHOWN, by_code, pairs_table

if TYPE_CHECKING:  # imports Spark and MLflow
    from cnnlib.evaluation.gates import Gate
    from cnnlib.evaluation.result import Evaluation
    from pipelines.evaluate.flow import Evaluated
    from pipelines.evaluate.promote import Promotion


def classes_table(evaluation: "Evaluation") -> Table:
    """Return precision, recall and F1 per class. If there are many classes, show those with the lowest F1."""
    confusion = evaluation.confusion
    labels = [label for label in range(len(confusion.classes)) if confusion.support[label]]
    all_fit = len(labels) <= CLASSES_SHOWN
    shown = labels if all_fit else sorted(labels, key=lambda label: confusion.f1[label])[:CLASSES_SHOWN]
    table = Table(title="classes" if all_fit else f"the weakest of {len(labels):,} classes", title_justify="left")
    table.add_column("class", overflow="fold")
    for name in ("images", "precision", "recall", "F1"):
        table.add_column(name, justify="right")
    for label in shown:
        values = (confusion.precision[label], confusion.recall[label], confusion.f1[label])
        table.add_row(confusion.classes[label], f"{confusion.support[label]:,}", *(f"{value:.4f}" for value in values))
    return table


def evaluation_table(evaluated: "Evaluated") -> Table:
    """Return the metrics over all images, and where the report and the run are."""
    evaluation = evaluated.evaluation
    confusion, metrics = evaluation.confusion, evaluation.metrics()
    table = pairs_table("evaluation")
    table.add_row("model", str(evaluation.model))
    table.add_row("images", f"{confusion.rows:,} of {evaluation.split} in {evaluation.image_set.folder.uri}")
    if metrics["failed"]:
        table.add_row("failed", f"{metrics['failed']:,}{by_code(evaluation.failed_by_code)}, counted as wrong")
    low, high = confusion.interval
    table.add_row(
        "accuracy",
        f"{evaluation.accuracy:.4f} ({confusion.right:,} of {confusion.rows:,}; 95% interval {low:.3f} to {high:.3f})",
    )
    if evaluation.top_5_accuracy is not None:
        table.add_row("top-5 accuracy", f"{evaluation.top_5_accuracy:.4f}")
    table.add_row("macro F1", f"{metrics['macro_f1']:.4f}")
    table.add_row("log loss", f"{evaluation.log_loss:.4f}")
    table.add_row("calibration error", f"{metrics['expected_calibration_error']:.4f}")
    for name, accuracy in evaluation.robustness.items():
        table.add_row(f"under {name}", f"{accuracy:.4f} ({accuracy - evaluation.accuracy:+.4f})")
    table.add_section()
    table.add_row("report", evaluated.report)
    table.add_row("run", evaluated.run_url)
    return table


def gates_table(gates: "tuple[Gate, ...]") -> Table:
    """Return a row per gate: its limit, the figures of both models, and whether the challenger passed."""
    table = Table(title="gates", title_justify="left")
    for name in ("gate", "asked", "champion", "challenger", "found", "passed"):
        table.add_column(name, overflow="fold")
    for gate in gates:
        values = (gate.name, gate.asked, gate.champion, gate.challenger, gate.found)
        table.add_row(*values, "yes" if gate.passed else "NO", style="" if gate.passed else "bold")
    return table


def promotion_table(promotion: "Promotion") -> Table:
    """Return the version that the alias names now, and the one before."""
    table = pairs_table("promotion")
    table.add_row("alias", f"{promotion.model}@{promotion.alias}")
    table.add_row("before", "none" if promotion.before is None else f"version {promotion.before}")
    table.add_row("now", "none" if promotion.now is None else f"version {promotion.now}")
    if promotion.report:
        table.add_row("report", promotion.report)
    table.add_row("run", promotion.run_url)
    return table
