"""Draw a batch before and after augmentation, side by side, as PNG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from cnnlib.reports.page import shortened
from cnnlib.reports.style import as_png, styled

if TYPE_CHECKING:
    from matplotlib.figure import SubFigure

# Side of an image, and height of a line of its label, in inches.
_SIDE, _LINE = 1.1, 0.12
# So many characters of a label are as wide as an image.
_LONGEST_NAME, _LONGEST_MIXED_NAME = 18, 13


@dataclass(frozen=True)
class Pictures:
    """Images (batch, height, width, channels) uint8, and the fraction of each class in them, (batch, classes)."""

    images: np.ndarray
    targets: np.ndarray


@styled
def before_and_after(before: Pictures, after: Pictures, classes: Sequence[str]) -> bytes:
    """Draw both, each image at the same position of its side, below the names of its classes."""
    columns = math.ceil(math.sqrt(len(before.images)))
    rows = math.ceil(len(before.images) / columns)
    lines = max(label_of(target, classes).count("\n") + 1 for side in (before, after) for target in side.targets)
    height = (1.1 * rows + 0.5) * _SIDE + rows * lines * _LINE
    figure = Figure(((2 * columns + 0.4) * _SIDE, height), layout="constrained")
    left, right = figure.subfigures(1, 2, wspace=0.06, squeeze=False).ravel()
    for side, title, pictures in ((left, "before", before), (right, "after", after)):
        side.suptitle(title)
        _draw(side, pictures, classes, rows, columns)
    return as_png(figure)


def _draw(side: "SubFigure", pictures: Pictures, classes: Sequence[str], rows: int, columns: int) -> None:
    grid = side.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, image, target in zip(grid, pictures.images, pictures.targets, strict=False):
        shown = image[..., 0] if image.shape[-1] == 1 else image
        axes.imshow(shown, cmap="gray", vmin=0, vmax=255)
        axes.set_title(label_of(target, classes), fontsize=7, pad=2, parse_math=False)


def label_of(target: np.ndarray, classes: Sequence[str]) -> str:
    """Return the name of an image's class, or a line with the fraction and the name of each of its classes.

    >>> label_of(np.array([0.0, 1.0, 0.0]), ("cat", "dog", "cow"))
    'dog'
    >>> label_of(np.array([0.25, 0.75, 0.0]), ("cat", "dog", "cow of the Scottish Highlands"))
    '75% dog\\n25% cat'
    """
    labels = [label for label in np.argsort(-target, kind="stable") if round(float(target[label]) * 100)]
    if len(labels) == 1:
        return shortened(classes[labels[0]], _LONGEST_NAME)
    return "\n".join(f"{target[label]:.0%} {shortened(classes[label], _LONGEST_MIXED_NAME)}" for label in labels)
