"""Thumbnails for people to look at, of every image that the decoder can open."""

import numpy as np

from cnnlib.errors import ImageError
from cnnlib.sealed.frozen.images import MAX_PIXELS, ImageSpec, Limits, decode_image, encode_png, fit_array, read_image


def thumbnail_png(image: bytes | np.ndarray, side: int = 96, max_pixels: int = MAX_PIXELS) -> bytes | None:
    """Return a colour PNG of an encoded file or an array (height, width, 1 or 3) uint8, at most `side` pixels a side.

    The image keeps its proportions and is never enlarged. Returns None for content that cannot be decoded, and for a
    file that has more than `max_pixels` according to its header.
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
