"""The figure of a sweep of the learning rate, as PNG."""

import io
from collections.abc import Sequence

from matplotlib.figure import Figure

from cnnlib.reports.figures import BLUE, LINE, ORANGE


def rate_sweep_figure(
    rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], suggested: float | None
) -> bytes:
    """Loss against learning rate: each step's, their average, and the suggested rate, if any."""
    figure = Figure((7.0, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.plot(rates, losses, color=LINE, linewidth=0.8, label="of a step")
    axes.plot(rates, smoothed, color=BLUE, linewidth=2.0, label="average")
    if suggested is not None:
        axes.axvline(suggested, color=ORANGE, linestyle="--", label=f"suggested: {suggested:.2g}")
    axes.set_xscale("log")
    # A last step far above the others would flatten them.
    top, bottom = max(smoothed), min(smoothed)
    axes.set_ylim(bottom - 0.1 * (top - bottom), top + 0.1 * (top - bottom))
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    axes.legend(frameon=False)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=110)
    return png.getvalue()
