"""Names beside the points of a figure, none over another."""

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from matplotlib.transforms import Bbox

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

# Where a name may lie from its point, in typographic points and turns: the nearest free place is taken.
_DISTANCES = (7, 14, 24, 36, 50, 66)
_TURNS = (0, 1 / 2, 1 / 8, 7 / 8, 3 / 8, 5 / 8, 1 / 4, 3 / 4)
# From here on a line leads to the point.
_FAR = 10
_MARKER = 8  # pixels around another's point that stay free: a name belongs to what it is nearest to
_SIZE = 8.5


def label_points(
    figure: "Figure", axes: "Axes", across: np.ndarray, up: np.ndarray, names: Sequence[str]
) -> "list[Annotation]":
    """Write a name beside each point (across, up), in data coordinates: the nearest place where it covers nothing.

    Where there is no free place, the farthest is taken. The figure's axes must have their limits and scales.
    """
    canvas = FigureCanvasAgg(figure)
    # The layout is settled only in drawing.
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
            # The name's alone: an annotation's own has the line in it.
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
        arrowprops={"arrowstyle": "-", "linewidth": 0.6, "color": "#8a94a2"} if distance > _FAR else None,
    )
