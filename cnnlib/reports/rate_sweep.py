"""Draw a sweep of the learning rate as PNG."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from cnnlib.reports.style import BLUE, GREY, ORANGE, as_png, styled


@styled
def rate_sweep_figure(
    rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], suggested: float | None
) -> bytes:
    """Draw the loss of each step and their moving average by learning rate, and the suggested rate if there is one."""
    figure = Figure((7.0, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses, color=GREY, linewidth=0.8, label="one step")
    axes.plot(rates, smoothed, color=BLUE, linewidth=2.0, label="average")
    if suggested is not None:
        axes.axvline(suggested, color=ORANGE, linestyle="--", label=f"suggested: {suggested:.2g}")
    axes.set_xscale("log")
    # Fit the axis to the average: a last step far above the others would flatten the rest.
    top, bottom = max(smoothed), min(smoothed)
    axes.set_ylim(bottom - 0.1 * (top - bottom), top + 0.1 * (top - bottom))
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    axes.legend()
    return as_png(figure)
