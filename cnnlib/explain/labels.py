"""Names beside the points of a figure, without overlaps."""

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from cnnlib.reports.style import GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

# Positions of a name around its point, in typographic points and turns. The nearest free position wins.
_DISTANCES = (7, 14, 24, 36, 50, 66)
_TURNS = (0, 1 / 2, 1 / 8, 7 / 8, 3 / 8, 5 / 8, 1 / 4, 3 / 4)
# Beyond this distance, a line leads from the name to its point.
_FAR = 10
# Pixels around other points that stay free, because readers take a name for the nearest point's.
_MARKER = 8
_SIZE = 8.5


def label_points(
    figure: "Figure", axes: "Axes", across: np.ndarray, up: np.ndarray, names: Sequence[str]
) -> "list[Annotation]":
    """Write a name beside each point (across, up), in data coordinates, at the nearest position that is free.

    If no position is free, the name goes to the farthest. Set the limits and scales of the axes before.
    """
    canvas = FigureCanvasAgg(figure)
    # Drawing computes the layout.
    canvas.draw()
    points = axes.transData.transform(np.column_stack([across, up]))
    marked = [Bbox.from_extents(x - _MARKER, y - _MARKER, x + _MARKER, y + _MARKER) for x, y in points]
    inside = axes.get_window_extent()
    labels: list[Annotation] = []
    taken: list[Bbox] = []
    for number, (name, *point) in enumerate(zip(names, across, up, strict=True)):
        others = [*marked[:number], *marked[number + 1 :], *taken]
        for distance, turn in itertools.product(_DISTANCES, _TURNS):
            label = _label(axes, name, (point[0], point[1]), distance, turn)
            label.update_positions(canvas.get_renderer())
            # The box of the text. An annotation's own box includes the line.
            box = Text.get_window_extent(label, canvas.get_renderer())
            within = inside.containsx(box.x0) and inside.containsx(box.x1)
            within = within and inside.containsy(box.y0) and inside.containsy(box.y1)
            if within and not box.count_overlaps(others):
                break
            if (distance, turn) != (_DISTANCES[-1], _TURNS[-1]):
                label.remove()
        taken.append(box)
        labels.append(label)
    return labels


def _label(axes: "Axes", name: str, point: tuple[float, float], distance: float, turn: float) -> "Annotation":
    right, upward = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    return axes.annotate(
        name,
        point,
        (distance * right, distance * upward),
        textcoords="offset points",
        ha="left" if right > 0.1 else "right" if right < -0.1 else "center",
        va="bottom" if upward > 0.1 else "top" if upward < -0.1 else "center",
        fontsize=_SIZE,
        parse_math=False,
        arrowprops={"arrowstyle": "-", "linewidth": 0.6, "color": GREY} if distance > _FAR else None,
    )
