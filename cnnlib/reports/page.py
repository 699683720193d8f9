"""What the pages have in common: their frame, their looks, and how numbers, names and pictures are put into them.

The words stand in templates beside this module, the looks in report.css.
"""

import base64
import io
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, FunctionLoader, StrictUndefined
from PIL import Image

from cnnlib.config import flatten_values
from cnnlib.sealed.frozen.images import encode_png

# Of a thumbnail's longer side, in pixels.
THUMBNAIL_SIDE = 64
# A list of more than this folds away.
MOST_OPEN = 50
LONGEST_NAME = 120

# HTML has no way to write these, and UTF-8 none for half a surrogate pair, as Python gives for a path of odd bytes.
_UNWRITABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def render_page(template: str, **shown: Any) -> str:
    """Give a whole page as HTML: a template of this folder, with what it shows."""
    return _UNWRITABLE.sub("\ufffd", _templates().get_template(template).render(**shown))


def thumbnail(pixels: np.ndarray) -> bytes:
    """Shrink (height, width, 1 or 3) uint8 to at most 64 pixels, and give the smaller of its PNG and JPEG files."""
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=85)
    shrunk = np.asarray(image).reshape(image.height, image.width, -1)
    return min(encode_png(shrunk), jpeg.getvalue(), key=len)


def thumbnail_scale(height: int, width: int) -> float:
    """How thumbnails are shown: enlarged by a whole number where they are small, so that pixels stay even.

    >>> thumbnail_scale(28, 28), thumbnail_scale(96, 128)
    (2, 0.5)
    """
    longer = max(height, width)
    return THUMBNAIL_SIDE // longer if longer <= THUMBNAIL_SIDE else THUMBNAIL_SIDE / longer


def settings_as_text(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Settings as the command line names them, with their values as text.

    >>> settings_as_text({"split": {"val_fraction": 0.1, "salt": "x"}})
    [('split.val_fraction', '0.1'), ('split.salt', 'x')]
    """
    return [
        (name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for name, value in flatten_values(dict(settings)).items()
    ]


def percent(part: float, whole: float) -> str:
    """A share for people: never 0% of something that is there, nor 100% of what is not all.

    >>> percent(1, 3), percent(1, 100_000), percent(99_999, 100_000), percent(0, 0)
    ('33.3%', '<0.1%', '>99.9%', '0.0%')
    """
    share = part / whole if whole else 0.0
    if 0 < share < 0.001:
        return "<0.1%"
    if 0.999 < share < 1:
        return ">99.9%"
    return f"{share:.1%}"


def _short(name: str) -> str:
    """A name or message of any length, cut to what a table can show."""
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _data_url(picture: bytes) -> str:
    """A PNG, JPEG or SVG as a URL that carries it."""
    kinds = {b"\x89PNG": "png", b"\xff\xd8": "jpeg"}
    kind = next((kind for start, kind in kinds.items() if picture.startswith(start)), "svg+xml")
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def _templates() -> Environment:
    # importlib.resources reads from a folder and from a zipped wheel alike.
    loader = FunctionLoader(lambda name: files(__package__).joinpath(name).read_text("utf-8"))
    templates = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    templates.filters |= {"number": "{:,}".format, "percent": percent, "short": _short, "data_url": _data_url}
    templates.globals |= {"MOST_OPEN": MOST_OPEN, "THUMBNAIL_SIDE": THUMBNAIL_SIDE}
    return templates
