"""Draw the figures of an evaluation as SVG, for its page and its MLflow run."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from cnnlib.evaluation.metrics import Confusion, Reliability
from cnnlib.reports.page import shortened
from cnnlib.reports.style import BLUE, GREY, ORANGE, as_svg, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# With more classes than these, there is no room for counts or for names.
MOST_COUNTED = 20
MOST_NAMED = 50
LONGEST_NAME = 18


@styled
def confusion_figure(confusion: Confusion) -> bytes:
    """Draw the fraction of each true class that was predicted as each class. A row is a true class; 1 is dark blue."""
    count = len(confusion.classes)
    side = min(10.0, 3.0 + 0.4 * count)
    figure = Figure((side, side * 0.92), layout="constrained")
    axes = figure.subplots()
    fractions = confusion.counts / np.maximum(confusion.support, 1)[:, None]
    shown = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(shown, ax=axes, shrink=0.7, label="fraction of the true class")
    axes.grid(visible=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if count <= MOST_NAMED:
        names = [shortened(name, LONGEST_NAME) for name in confusion.classes]
        axes.set_xticks(range(count), names, rotation=90, parse_math=False)
        axes.set_yticks(range(count), names, parse_math=False)
    if count <= MOST_COUNTED:
        _write_counts(axes, confusion.counts, fractions)
    return as_svg(figure)


def _write_counts(axes: "Axes", counts: np.ndarray, fractions: np.ndarray) -> None:
    for (row, column), images in np.ndenumerate(counts):
        if images:
            colour = "white" if fractions[row, column] > 0.5 else "black"
            axes.text(column, row, f"{images:,}", ha="center", va="center", color=colour, fontsize=8)


@styled
def reliability_figure(reliability: Reliability) -> bytes:
    """Draw the accuracy by confidence, and below it the number of images by confidence."""
    bins = len(reliability.counts)
    width = 1 / bins
    middle = (np.arange(bins) + 0.5) * width
    filled = reliability.counts > 0
    figure = Figure((6, 5.4), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color=GREY, linestyle="--", zorder=3, label="right as often as confident")
    above.bar(middle[filled], reliability.accuracy[filled], width * 0.92, color=BLUE, label="fraction right")
    points = reliability.confidence[filled], reliability.accuracy[filled]
    above.plot(*points, "o", color=ORANGE, label="at the mean confidence")
    above.set(ylim=(0, 1.02), ylabel="fraction right")
    above.legend(loc="upper left")
    below.bar(middle, reliability.counts, width * 0.92, color=BLUE)
    below.set(xlim=(0, 1), xlabel="confidence: the highest probability", ylabel="images")
    if reliability.counts.max(initial=0) > 100:
        below.set_yscale("symlog", linthresh=10)
    return as_svg(figure)
