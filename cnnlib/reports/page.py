"""Render a page, with the frame, the style, and the filters for numbers, names and pictures that all pages share.

The texts are in the templates beside this module, the style is in report.css.
"""

import base64
import io
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, FunctionLoader, StrictUndefined
from PIL import Image

from cnnlib.config import flatten_values
from cnnlib.sealed.frozen.images import encode_png

# Longer side of a thumbnail, in pixels.
THUMBNAIL_SIDE = 64
# A list with more items than this is folded.
MOST_OPEN = 50
LONGEST_NAME = 120

# HTML cannot contain these characters. UTF-8 cannot encode half a surrogate pair, which Python uses for the bytes of a
# path that are not UTF-8.
_UNWRITABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def render_page(template: str, **shown: Any) -> str:
    """Render a template of this folder as a whole HTML page. `shown` are the template's variables."""
    return _UNWRITABLE.sub("\ufffd", _templates().get_template(template).render(**shown))


def thumbnail(pixels: np.ndarray) -> bytes:
    """Shrink pixels (height, width, 1 or 3) uint8 to at most 64 per side. Return the smaller of their PNG and JPEG."""
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=85)
    shrunk = np.asarray(image).reshape(image.height, image.width, -1)
    return min(encode_png(shrunk), jpeg.getvalue(), key=len)


def thumbnail_scale(height: int, width: int) -> float:
    """Return the factor by which thumbnails are shown. It is a whole number for small ones, so all pixels look equal.

    >>> thumbnail_scale(28, 28), thumbnail_scale(96, 128)
    (2, 0.5)
    """
    longer = max(height, width)
    return THUMBNAIL_SIDE // longer if longer <= THUMBNAIL_SIDE else THUMBNAIL_SIDE / longer


def settings_as_text(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return settings under their names on the command line, with their values as text.

    >>> settings_as_text({"split": {"val_fraction": 0.1, "salt": "x"}})
    [('split.val_fraction', '0.1'), ('split.salt', 'x')]
    """
    return [
        (name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for name, value in flatten_values(dict(settings)).items()
    ]


def percent(part: float, whole: float) -> str:
    """Format part / whole. It is "0.0%" only for nothing, and "100.0%" only for everything.

    >>> percent(1, 3), percent(1, 100_000), percent(99_999, 100_000), percent(0, 0)
    ('33.3%', '<0.1%', '>99.9%', '0.0%')
    """
    fraction = part / whole if whole else 0.0
    if 0 < fraction < 0.001:
        return "<0.1%"
    if 0.999 < fraction < 1:
        return ">99.9%"
    return f"{fraction:.1%}"


def shortened(name: str, longest: int = LONGEST_NAME) -> str:
    """Return a name or message in at most `longest` characters.

    >>> shortened("golden retriever", 10), shortened("golden", 10)
    ('golden re…', 'golden')
    """
    return name if len(name) <= longest else name[: longest - 1] + "…"


def _data_url(picture: bytes) -> str:
    """Encode a PNG, JPEG or SVG as a data URL."""
    kinds = {b"\x89PNG": "png", b"\xff\xd8": "jpeg"}
    kind = next((kind for start, kind in kinds.items() if picture.startswith(start)), "svg+xml")
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


@cache
def _templates() -> Environment:
    # importlib.resources can also read from a zipped wheel.
    loader = FunctionLoader(lambda name: files(__package__).joinpath(name).read_text("utf-8"))
    templates = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    templates.filters |= {"number": "{:,}".format, "percent": percent, "short": shortened, "data_url": _data_url}
    templates.globals |= {"MOST_OPEN": MOST_OPEN, "THUMBNAIL_SIDE": THUMBNAIL_SIDE}
    return templates
