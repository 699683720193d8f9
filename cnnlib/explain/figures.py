"""Figures of filters, maps, where a network looks, and what networks cost; as Matplotlib figures without global state.

`save_figure` writes one as PNG, and gives what a notebook shows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from cnnlib.explain.labels import label_points
from cnnlib.reports.figures import BLUE, LINE, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GREEN, PURPLE = "#2f8f5b", "#8a4fae"
_SETTINGS: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 9,
    "figure.titlesize": 12,
    "axes.edgecolor": LINE,
}
_DPI = 120
# As many maps of a layer as are still large enough to see: three rows.
MOST_MAPS = 30
_COLUMNS = 10


@dataclass(frozen=True)
class SavedFigure:
    """A figure in a PNG file; notebooks show it where it is a cell's last expression."""

    path: Path

    def _repr_png_(self) -> bytes:
        return self.path.read_bytes()


def save_figure(figure: Figure, path: Path) -> SavedFigure:
    """Write a figure as PNG, 120 dots an inch, and make the folder where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context(_SETTINGS):
        figure.savefig(path, format="png", dpi=_DPI, facecolor="white")
    return SavedFigure(path)


def arithmetic_figure(image: np.ndarray, kernel: np.ndarray, output: np.ndarray, title: str) -> Figure:
    """An image, a kernel and what comes of them, each (height, width), as tables of numbers."""
    tables = {"image": image, "kernel": kernel, "output": output}
    with rc_context(_SETTINGS):
        widths = [table.shape[1] for table in tables.values()]
        tallest = max(table.shape[0] for table in tables.values())
        figure = Figure((2 + 0.6 * sum(widths), 1.2 + 0.6 * tallest), layout="compressed")
        figure.suptitle(title)
        for axes, (name, table) in zip(figure.subplots(1, 3, width_ratios=widths), tables.items(), strict=True):
            # A sign has a colour; the larger the value, the darker.
            most = max(np.abs(table).max(), 1)
            axes.imshow(table, cmap="RdBu_r", vmin=-2 * most, vmax=2 * most)
            for (row, column), value in np.ndenumerate(table):
                axes.text(column, row, f"{value:g}", ha="center", va="center")
            axes.set_title(f"{name}, {table.shape[0]} x {table.shape[1]}", fontsize=10)
            axes.set_xticks(range(table.shape[1]))
            axes.set_yticks(range(table.shape[0]))
            # Equally high axes, so that all cells are of one size.
            axes.set(ylim=(tallest - 0.5, -0.5), xlabel="column", ylabel="row")
            axes.xaxis.tick_top()
            axes.xaxis.set_label_position("top")
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
        return figure


def filters_figure(filters: np.ndarray, title: str, *, channel: int = 0) -> Figure:
    """The weights of filters (height, width, channels, filters) on one of the channels: red above 0, blue below."""
    with rc_context(_SETTINGS):
        weights = filters[:, :, channel, :MOST_MAPS]
        figure, panels = _panels(weights.shape[-1])
        figure.suptitle(_counted(title, weights.shape[-1], filters.shape[-1]))
        most = float(np.abs(weights).max()) or 1.0
        for number, axes in enumerate(panels):
            shown = axes.imshow(weights[..., number], cmap="RdBu_r", vmin=-most, vmax=most)
            axes.set_title(f"{number}")
        figure.colorbar(shown, ax=panels, label="weight", shrink=0.8)
        return figure


def maps_figure(maps: np.ndarray, title: str) -> Figure:
    """A layer's maps (height, width, channels) of one image, on one scale: dark is low, yellow is high."""
    with rc_context(_SETTINGS):
        chosen = maps[..., :MOST_MAPS]
        figure, panels = _panels(chosen.shape[-1])
        figure.suptitle(_counted(title, chosen.shape[-1], maps.shape[-1]))
        low, high = float(chosen.min()), float(chosen.max())
        for number, axes in enumerate(panels):
            shown = axes.imshow(chosen[..., number], cmap="viridis", vmin=low, vmax=high)
            axes.set_title(f"{number}")
        figure.colorbar(shown, ax=panels, label="activation", shrink=0.8)
        return figure


def grad_cam_figure(
    images: np.ndarray,
    heats: np.ndarray,
    captions: Sequence[str],
    title: str,
    *,
    covered: tuple[float, float] | None = None,
) -> Figure:
    """Images (batch, height, width, channels) uint8, and below each where it speaks for a class.

    `heats` (batch, height, width) are those of `grad_cam`; each has its own scale, from 0 to its highest value. There
    may be no images. `covered` is from which to which pixel, across and down, the maps behind them look, for a network
    whose convolutions have no padding: the heat is laid there instead of over the whole image.
    """
    with rc_context(_SETTINGS):
        figure = Figure((1.6 + 1.5 * max(len(images), 2), 3.6), layout="compressed")
        figure.suptitle(title)
        if not len(images):
            figure.text(0.5, 0.5, "there are none", ha="center")
            return figure
        rows = figure.subplots(2, len(images), squeeze=False)
        for above, below, image, heat, caption in zip(*rows, images, heats, captions, strict=True):
            above.set_title(caption)
            _show_image(above, image)
            # Dark, so that no part of it outshines the heat.
            _show_image(below, image // 2)
            limits = below.axis()
            extent = (*covered, *reversed(covered)) if covered else limits
            share = heat / (heat.max() or 1)
            below.imshow(share, cmap="inferno", alpha=0.6, vmin=0, vmax=1, extent=extent)
            below.axis(limits)
            _without_ticks(above, below)
        scale = ScalarMappable(Normalize(0, 1), "inferno")
        figure.colorbar(scale, ax=list(rows.flat), label="share of the highest value", shrink=0.8)
        rows[0, 0].set_ylabel("image")
        rows[1, 0].set_ylabel("Grad-CAM")
        return figure


def cost_figure(parameters: Mapping[str, int], multiply_adds: Mapping[str, int], title: str) -> Figure:
    """Parameters against multiply-adds for one image, by name, both on scales of powers of ten."""
    with rc_context(_SETTINGS):
        figure = Figure((10, 7), layout="constrained")
        axes = figure.subplots()
        across = np.array([multiply_adds[name] for name in parameters], float)
        up = np.array(list(parameters.values()), float)
        axes.loglog(across, up, "o", color=BLUE)
        # Names need room to the sides.
        axes.set_xlim(across.min() / 3, across.max() * 4)
        axes.set_ylim(up.min() / 2, up.max() * 2)
        axes.grid(color=LINE, alpha=0.25)
        axes.set_title(title, fontsize=12)
        axes.set(xlabel="multiply-adds for one image", ylabel="parameters")
        label_points(figure, axes, across, up, list(parameters))
        return figure


def gradients_figure(stacks: Mapping[str, np.ndarray], title: str) -> Figure:
    """The gradient at each layer's maps relative to the last layer's, (depth,) for each stack by name."""
    with rc_context(_SETTINGS):
        figure = Figure((8, 4.8), layout="constrained")
        axes = figure.subplots()
        styles = [(BLUE, "-"), (ORANGE, "--"), (GREEN, "-."), (PURPLE, ":")]
        for (name, gradients), (colour, style) in zip(stacks.items(), styles * len(stacks), strict=False):
            axes.semilogy(np.arange(1, len(gradients) + 1), gradients, style, color=colour, linewidth=2, label=name)
        axes.grid(color=LINE, alpha=0.25)
        axes.set_title(title, fontsize=12)
        axes.set(xlabel="layer, 1 is next to the image", ylabel="norm of the gradient / that at the last layer")
        axes.legend(frameon=False)
        return figure


def _panels(count: int) -> tuple[Figure, list["Axes"]]:
    """A figure with a small square for each, in rows of ten."""
    columns = min(count, _COLUMNS)
    rows = -(-count // columns)
    figure = Figure((1.6 + 1.0 * columns, 0.8 + 1.15 * rows), layout="compressed")
    every = list(figure.subplots(rows, columns, squeeze=False).flat)
    _without_ticks(*every)
    for axes in every[count:]:
        axes.set_axis_off()
    return figure, every[:count]


def _show_image(axes: "Axes", image: np.ndarray) -> None:
    # (height, width, 1) uint8 -> (height, width); three channels are colours.
    axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)


def _without_ticks(*every: "Axes") -> None:
    for axes in every:
        axes.set_xticks([])
        axes.set_yticks([])


def _counted(title: str, shown: int, there: int) -> str:
    return title if shown == there else f"{title} (the first {shown} of {there})"
