"""Figures of an evaluation, as SVG: they stand in the report, and beside it in the MLflow run."""

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from cnnlib.evaluation.metrics import Confusion, Reliability

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, ORANGE, LINE = "#2a67a9", "#cf7a10", "#8a94a2"
# More classes than these have no room for counts, for names.
MOST_COUNTED = 20
MOST_NAMED = 50
LONGEST_NAME = 18

_SETTINGS: dict[Any, Any] = {
    # Text stays text, in whatever script: the browser has fonts that Matplotlib lacks. Equal data, equal file.
    "svg.fonttype": "none",
    "svg.hashsalt": "sparkcnn",
    "font.family": "sans-serif",
    "axes.edgecolor": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def confusion_figure(confusion: Confusion) -> bytes:
    """What share of each true class was taken for each class: a row a true class, white 0, blue 1."""
    count = len(confusion.classes)
    side = min(10.0, 3.0 + 0.4 * count)
    with rc_context(_SETTINGS):
        figure = Figure((side, side * 0.92), layout="constrained")
        axes = figure.subplots()
        shares = confusion.counts / np.maximum(confusion.support, 1)[:, None]
        shown = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        figure.colorbar(shown, ax=axes, shrink=0.7, label="share of the true class")
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        if count <= MOST_NAMED:
            names = [_short(name) for name in confusion.classes]
            axes.set_xticks(range(count), names, rotation=90, parse_math=False)
            axes.set_yticks(range(count), names, parse_math=False)
        if count <= MOST_COUNTED:
            _write_counts(axes, confusion.counts, shares)
        return _svg(figure)


def _write_counts(axes: "Axes", counts: np.ndarray, shares: np.ndarray) -> None:
    for (row, column), images in np.ndenumerate(counts):
        if images:
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{images:,}", ha="center", va="center", color=colour, fontsize=8)


def reliability_figure(reliability: Reliability) -> bytes:
    """Above, how often the model is right by how sure it is; below, how many images it is so sure of."""
    bins = len(reliability.counts)
    width = 1 / bins
    middle = (np.arange(bins) + 0.5) * width
    filled = reliability.counts > 0
    with rc_context(_SETTINGS):
        figure = Figure((6, 5.4), layout="constrained")
        above, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
        above.plot([0, 1], [0, 1], color=LINE, linestyle="--", zorder=3, label="right as often as sure")
        above.bar(middle[filled], reliability.accuracy[filled], width * 0.92, color=BLUE, label="share right")
        points = reliability.confidence[filled], reliability.accuracy[filled]
        above.plot(*points, "o", color=ORANGE, label="at its mean confidence")
        above.set(ylim=(0, 1.02), ylabel="share right")
        above.legend(loc="upper left", frameon=False)
        below.bar(middle, reliability.counts, width * 0.92, color=BLUE)
        below.set(xlim=(0, 1), xlabel="confidence: the highest probability", ylabel="images")
        if reliability.counts.max(initial=0) > 100:
            below.set_yscale("symlog", linthresh=10)
        return _svg(figure)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _svg(figure: Figure) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        # It measures names with its own font, which lacks most scripts; the browser's fonts draw them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(file, format="svg", facecolor="white", metadata={"Date": None})
    return file.getvalue()
