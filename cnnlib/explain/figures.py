"""Figures of filters, of feature maps, of Grad-CAM, and of the costs of architectures, without global state.

`save_figure` writes a figure as PNG, and returns an object that a notebook shows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from cnnlib.explain.labels import label_points
from cnnlib.reports.style import BLUE, COLOURS, DASHES, as_png, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# More maps of a layer than three rows would be too small to see.
MOST_MAPS = 30
_COLUMNS = 10


@dataclass(frozen=True)
class SavedFigure:
    """A figure in a PNG file. A notebook shows it if it is the last expression of a cell."""

    path: Path

    def _repr_png_(self) -> bytes:
        return self.path.read_bytes()


def save_figure(figure: Figure, path: Path) -> SavedFigure:
    """Write a figure as PNG, and make its folder if it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(as_png(figure))
    return SavedFigure(path)


@styled
def arithmetic_figure(image: np.ndarray, kernel: np.ndarray, output: np.ndarray, title: str) -> Figure:
    """Draw an image, a kernel and their output, each (height, width), as tables of numbers."""
    tables = {"image": image, "kernel": kernel, "output": output}
    widths = [table.shape[1] for table in tables.values()]
    tallest = max(table.shape[0] for table in tables.values())
    figure = Figure((2 + 0.6 * sum(widths), 1.2 + 0.6 * tallest), layout="compressed")
    figure.suptitle(title)
    for axes, (name, table) in zip(figure.subplots(1, 3, width_ratios=widths), tables.items(), strict=True):
        # Red is positive, blue is negative, and darker is further from 0.
        most = max(np.abs(table).max(), 1)
        axes.imshow(table, cmap="RdBu_r", vmin=-2 * most, vmax=2 * most)
        for (row, column), value in np.ndenumerate(table):
            axes.text(column, row, f"{value:g}", ha="center", va="center")
        axes.set_title(f"{name}, {table.shape[0]} x {table.shape[1]}")
        axes.set_xticks(range(table.shape[1]))
        axes.set_yticks(range(table.shape[0]))
        # Axes of one height give cells of one size.
        axes.set(ylim=(tallest - 0.5, -0.5), xlabel="column", ylabel="row")
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.grid(visible=False)
    return figure


@styled
def filters_figure(filters: np.ndarray, title: str, *, channel: int = 0) -> Figure:
    """Draw filters (height, width, channels, filters) on one channel: red weights are above 0, blue ones below."""
    weights = filters[:, :, channel, :MOST_MAPS]
    figure, panels = _panels(weights.shape[-1])
    figure.suptitle(_with_counts(title, weights.shape[-1], filters.shape[-1]))
    most = float(np.abs(weights).max()) or 1.0
    for number, axes in enumerate(panels):
        shown = axes.imshow(weights[..., number], cmap="RdBu_r", vmin=-most, vmax=most)
        axes.set_title(f"{number}")
    figure.colorbar(shown, ax=panels, label="weight", shrink=0.8)
    return figure


@styled
def maps_figure(maps: np.ndarray, title: str) -> Figure:
    """Draw a layer's maps (height, width, channels) for one image, on one scale: dark is low, yellow is high."""
    chosen = maps[..., :MOST_MAPS]
    figure, panels = _panels(chosen.shape[-1])
    figure.suptitle(_with_counts(title, chosen.shape[-1], maps.shape[-1]))
    low, high = float(chosen.min()), float(chosen.max())
    for number, axes in enumerate(panels):
        shown = axes.imshow(chosen[..., number], cmap="viridis", vmin=low, vmax=high)
        axes.set_title(f"{number}")
    figure.colorbar(shown, ax=panels, label="activation", shrink=0.8)
    return figure


@styled
def grad_cam_figure(
    images: np.ndarray,
    heats: np.ndarray,
    captions: Sequence[str],
    title: str,
    *,
    covered: tuple[float, float] | None = None,
) -> Figure:
    """Draw images (batch, height, width, channels) uint8, and below each image its heat map for a class.

    `heats` (batch, height, width) come from `grad_cam`. Each has its own scale, from 0 to its highest value. The batch
    may be empty. `covered` is for a model whose convolutions have no padding: the first and the last pixel, across and
    down, that its maps look at. The heat map covers this area instead of the whole image.
    """
    figure = Figure((1.6 + 1.5 * max(len(images), 2), 3.6), layout="compressed")
    figure.suptitle(title)
    if not len(images):
        figure.text(0.5, 0.5, "there are none", ha="center")
        return figure
    rows = figure.subplots(2, len(images), squeeze=False)
    for above, below, image, heat, caption in zip(*rows, images, heats, captions, strict=True):
        above.set_title(caption)
        _show_image(above, image)
        # A darker image does not outshine the heat map.
        _show_image(below, image // 2)
        limits = below.axis()
        extent = (*covered, *reversed(covered)) if covered else limits
        below.imshow(heat / (heat.max() or 1), cmap="inferno", alpha=0.6, vmin=0, vmax=1, extent=extent)
        below.axis(limits)
        _frame(above, below)
    scale = ScalarMappable(Normalize(0, 1), "inferno")
    figure.colorbar(scale, ax=list(rows.flat), label="fraction of the highest value", shrink=0.8)
    rows[0, 0].set_ylabel("image")
    rows[1, 0].set_ylabel("Grad-CAM")
    return figure


@styled
def cost_figure(parameters: Mapping[str, int], multiply_adds: Mapping[str, int], title: str) -> Figure:
    """Draw parameters over multiply-adds per image, by name, both on logarithmic scales."""
    figure = Figure((10, 7), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots()
    across = np.array([multiply_adds[name] for name in parameters], float)
    up = np.array(list(parameters.values()), float)
    axes.loglog(across, up, "o", color=BLUE)
    # Names need space at the sides.
    axes.set_xlim(across.min() / 3, across.max() * 4)
    axes.set_ylim(up.min() / 2, up.max() * 2)
    axes.set(xlabel="multiply-adds per image", ylabel="parameters")
    label_points(figure, axes, across, up, list(parameters))
    return figure


@styled
def gradients_figure(stacks: Mapping[str, np.ndarray], title: str) -> Figure:
    """Draw the gradient at each layer's maps, relative to the last layer's: one curve (depth,) per named stack."""
    figure = Figure((8, 4.8), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots()
    for (name, gradients), colour, dashes in zip(stacks.items(), cycle(COLOURS), cycle(DASHES), strict=False):
        axes.semilogy(np.arange(1, len(gradients) + 1), gradients, dashes, color=colour, linewidth=2, label=name)
    axes.set(xlabel="layer, 1 is next to the image", ylabel="norm of the gradient / norm at the last layer")
    axes.legend()
    return figure


def _panels(count: int) -> tuple[Figure, list["Axes"]]:
    """Return a figure with `count` small squares, in rows of ten."""
    columns = min(count, _COLUMNS)
    rows = -(-count // columns)
    figure = Figure((1.6 + 1.0 * columns, 0.8 + 1.15 * rows), layout="compressed")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    _frame(*panels)
    for axes in panels[count:]:
        axes.set_axis_off()
    return figure, panels[:count]


def _show_image(axes: "Axes", image: np.ndarray) -> None:
    # (height, width, 1) uint8 -> (height, width). Three channels are colours.
    axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)


def _frame(*panels: "Axes") -> None:
    """Draw a frame around each panel, without ticks."""
    for axes in panels:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(True)


def _with_counts(title: str, shown: int, total: int) -> str:
    return title if shown == total else f"{title} (the first {shown} of {total})"
