"""Draw the figures of a comparison and a study as PNG, for the MLflow run, the output folder and the README."""

from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cnnlib.reports.style import BLUE, COLOURS, DASHES, MARKERS, as_png, styled
from cnnlib.tuning.comparison import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@styled
def comparison_figure(comparison: Comparison) -> bytes:
    """Draw the metric (left) and the training loss (right) by epoch: mean over the seeds, ± one standard deviation.

    The legend lists the values with their best metric, best first.
    """
    figure = Figure((9.5, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    seeds = max(len(contender.attempts) for contender in comparison.contenders)
    styles = zip(cycle(COLOURS), cycle(MARKERS), cycle(DASHES), strict=False)
    for contender, style in zip(comparison.ranking, styles, strict=False):
        label = f"{contender.value}: {contender.best(comparison.metric, comparison.direction)}"
        _draw(left, contender.curve(comparison.metric), style, label)
        _draw(right, contender.curve("loss"), style, label)
    left.set(xlabel="epoch", ylabel=comparison.metric)
    right.set(xlabel="epoch", ylabel="training loss")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles, labels = left.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside right upper",
        title=f"{comparison.setting}:\nbest {comparison.metric}",
        alignment="left",
    )
    spread = f", mean ± sample standard deviation of {seeds} seeds" if seeds > 1 else ""
    figure.suptitle(f"{comparison.setting}{spread}", x=0.01, ha="left")
    return as_png(figure)


@styled
def importance_figure(importances: Mapping[str, float], metric: str) -> bytes:
    """Draw a bar for the fraction of a metric's variation that each setting explains, the most important on top."""
    names = sorted(importances, key=lambda name: importances[name])
    fractions = [importances[name] for name in names]
    figure = Figure((6.5, 1.2 + 0.4 * len(names)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(names, fractions, color=BLUE)
    axes.bar_label(bars, [f"{fraction:.2f}" for fraction in fractions], padding=3)
    axes.set(xlim=(0, 1.08), xlabel=f"fraction of the variation of {metric} (fANOVA)")
    axes.grid(visible=False, axis="y")
    return as_png(figure)


def _draw(axes: "Axes", curve: tuple[np.ndarray, np.ndarray], style: tuple[str, str, str], label: str) -> None:
    means, deviations = curve
    colour, marker, dashes = style
    epochs = np.arange(1, len(means) + 1)
    axes.plot(epochs, means, color=colour, marker=marker, markersize=4, linestyle=dashes, linewidth=1.4, label=label)
    axes.fill_between(epochs, means - deviations, means + deviations, color=colour, alpha=0.12, linewidth=0)
