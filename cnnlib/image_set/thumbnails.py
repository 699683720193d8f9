"""Small pictures for people to look at, of what the decoder can open at all."""

import numpy as np

from cnnlib.errors import ImageError
from cnnlib.sealed.frozen.images import MAX_PIXELS, ImageSpec, Limits, decode_image, encode_png, fit_array, read_image


def thumbnail_png(image: bytes | np.ndarray, side: int = 96, max_pixels: int = MAX_PIXELS) -> bytes | None:
    """A PNG in colour of an encoded file or an array (height, width, 1 or 3) uint8, at most `side` pixels a side.

    It keeps its proportions and is never enlarged. Gives None where there is nothing to see, and for a file whose
    header tells of more than `max_pixels`.
    """
    limits = Limits(max_pixels)
    try:
        if isinstance(image, np.ndarray):
            height, width = image.shape[:2]
        else:
            source = read_image(image, ImageSpec(1, 1, 3), limits)
            height, width = source.source_height, source.source_width
        scale = min(1, side / max(height, width))
        spec = ImageSpec(max(1, round(height * scale)), max(1, round(width * scale)), 3)
        fitted = fit_array(image, spec) if isinstance(image, np.ndarray) else decode_image(image, spec, limits)
        return encode_png(fitted)
    except ImageError:
        return None
