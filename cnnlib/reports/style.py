"""The one style of all figures, and the image files that they become."""

import io
import warnings
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

# Okabe and Ito (2008), "Color Universal Design": people with any colour vision can tell them apart. We leave out their
# yellow, which is too light for a line on white. Markers and dashes tell curves apart without any colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
BLUE, ORANGE = COLOURS[:2]
MARKERS = "osD^vP*X"
DASHES = ("-", "--", "-.", ":")
GREY = "#8a94a2"

_SETTINGS: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "figure.titlesize": 12,
    "axes.titlesize": 9,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e6ea",
    "grid.linewidth": 0.6,
    "image.interpolation": "nearest",
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "savefig.dpi": 110,
    "savefig.facecolor": "white",
    # Text stays text, in any script, because the browser has fonts that Matplotlib lacks.
    "svg.fonttype": "none",
    # Equal data gives an equal file.
    "svg.hashsalt": "sparkcnn",
}

# Put `@styled` on every function that draws or saves a figure.
styled = rc_context(_SETTINGS)


@styled
def as_png(figure: Figure) -> bytes:
    """Return a figure as a PNG file. Equal data gives an equal file, so it does not name Matplotlib's version."""
    drawn, file = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": None})
    # Nothing is transparent. Without that channel, and packed, the file is smaller in pages and repositories.
    Image.open(drawn).convert("RGB").save(file, format="png", optimize=True)
    return file.getvalue()


@styled
def as_svg(figure: Figure) -> bytes:
    """Return a figure as an SVG file. Equal data gives an equal file, so it has no date."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        # Matplotlib measures names with its own font, which lacks most scripts. The browser draws them with its fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
