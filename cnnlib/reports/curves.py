"""Figures of a comparison and of a study, as PNG: they stand in the README, the MLflow run and the output folder."""

import io
from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from cnnlib.tuning.comparison import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito (2008), "Color Universal Design": told apart whatever colours one sees; without their yellow, which is
# too light for a line on white. Markers and dashes tell them apart where there is no colour at all.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP*X"
DASHES = ("-", "--", "-.", ":")
LINE = "#8a94a2"
DPI = 100

_SETTINGS: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e6ea",
    "grid.linewidth": 0.6,
}


def comparison_figure(comparison: Comparison) -> bytes:
    """The metric (left) and the training loss (right) by epoch: means over the seeds, bands of one deviation.

    The legend lists the values as the curves rank, the best first, each with its best metric.
    """
    with rc_context(_SETTINGS):
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
            frameon=False,
            title=f"{comparison.setting}:\nbest {comparison.metric}",
            alignment="left",
        )
        spread = f", mean ± sample standard deviation of {seeds} seeds" if seeds > 1 else ""
        figure.suptitle(f"{comparison.setting}{spread}", x=0.01, ha="left", fontsize=10)
        return _png(figure)


def importance_figure(importances: Mapping[str, float], metric: str) -> bytes:
    """How much of the variation of a metric each setting explains, as bars, the most important on top."""
    names = sorted(importances, key=lambda name: importances[name])
    shares = [importances[name] for name in names]
    with rc_context(_SETTINGS):
        figure = Figure((6.5, 1.2 + 0.4 * len(names)), layout="constrained")
        axes = figure.subplots()
        bars = axes.barh(names, shares, color=COLOURS[0])
        axes.bar_label(bars, [f"{share:.2f}" for share in shares], padding=3)
        axes.set(xlim=(0, 1.08), xlabel=f"share of the variation of {metric} (fANOVA)")
        axes.grid(visible=False, axis="y")
        return _png(figure)


def _draw(axes: "Axes", curve: tuple[np.ndarray, np.ndarray], style: tuple[str, str, str], label: str) -> None:
    means, deviations = curve
    colour, marker, dashes = style
    epochs = np.arange(1, len(means) + 1)
    axes.plot(epochs, means, color=colour, marker=marker, markersize=4, linestyle=dashes, linewidth=1.4, label=label)
    axes.fill_between(epochs, means - deviations, means + deviations, color=colour, alpha=0.12, linewidth=0)


def _png(figure: Figure) -> bytes:
    drawn, file = io.BytesIO(), io.BytesIO()
    # Equal data, equal file: without the version of Matplotlib in it.
    figure.savefig(drawn, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    # Without the transparency that nothing has, and packed: figures lie in repositories and pages.
    Image.open(drawn).convert("RGB").save(file, format="png", optimize=True)
    return file.getvalue()
