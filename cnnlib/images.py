"""Encoded bytes -> pixels: the one decoder of training and scoring.

This module travels inside every registered model (see `cnnlib.sealed`), so that a model sees the same pixels
for ever. It therefore imports nothing of this project but `errors`, and that relatively.
"""

import io
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import ImageError

FORMATS = ("JPEG", "PNG")
MODES = {1: "L", 3: "RGB"}

# A file declares its size in its header, so a decompression bomb is turned away before any pixel is unpacked.
# Pillow warns at this size and raises at twice of it; here both are one code, so its warning adds nothing.
MAX_PIXELS = 89_478_485
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Transparency is dropped on purpose.
warnings.filterwarnings("ignore", message="Palette images with Transparency", category=UserWarning)


@dataclass(frozen=True)
class ImageSpec:
    """What every image of a set looks like to a model.

    `height` and `width` in pixels, `channels` 1 (grey) or 3 (RGB); `resize` names how an image of another
    size is brought to this one; `encoding` how the set stores it.
    """

    height: int
    width: int
    channels: int
    resize: str = "stretch"
    encoding: str = "raw"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels), as Keras counts them."""
        return self.height, self.width, self.channels

    @property
    def size_bytes(self) -> int:
        """Bytes of one raw image.

        >>> ImageSpec(28, 28, 1).size_bytes
        784
        """
        return self.height * self.width * self.channels

    def as_dict(self) -> dict[str, Any]:
        """The keys of `dataset.json`."""
        return asdict(self)


def decode_image(content: bytes, spec: ImageSpec) -> np.ndarray:
    """Decode a JPEG or PNG file and bring it to the spec: (height, width, channels) uint8.

    EXIF orientation is applied, grey and colour are converted into each other (ITU-R 601-2 luma), palettes are
    resolved, transparency is dropped.

    Raises ImageError: empty_file, not_an_image, too_many_pixels, truncated, unsupported_mode, unreadable.
    """
    if not content:
        raise ImageError("empty_file", "the file has no bytes")
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError("too_many_pixels", str(error)) from error
    except UnidentifiedImageError as error:
        # Its message has but an address in memory.
        raise ImageError("not_an_image", "neither JPEG nor PNG") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError("not_an_image", f"neither JPEG nor PNG: {error}") from error
    with image:
        pixel_count = image.width * image.height
        if pixel_count > MAX_PIXELS:
            raise ImageError("too_many_pixels", f"{pixel_count} pixels exceed the limit of {MAX_PIXELS}")
        return _to_spec(image, spec)


def fit_array(pixels: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """Bring an array (height, width, channels) uint8 with 1 or 3 channels to the spec, as `decode_image` would.

    Raises ImageError(unsupported_mode) for another type or number of channels.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in MODES or not pixels.size:
        raise ImageError(
            "unsupported_mode",
            f"expected at least one pixel (height, width, 1 or 3) uint8, received {pixels.shape} {pixels.dtype}",
        )
    if pixels.shape == spec.shape:
        return pixels
    return _to_spec(_to_pillow(pixels), spec)


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode (height, width, 1 or 3) uint8 as PNG, without loss.

    >>> pixels = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    >>> bool((decode_image(encode_png(pixels), ImageSpec(3, 4, 1)) == pixels).all())
    True
    """
    file = io.BytesIO()
    _to_pillow(pixels).save(file, "PNG")
    return file.getvalue()


def _to_pillow(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _to_spec(image: Image.Image, spec: ImageSpec) -> np.ndarray:
    if image.mode.startswith(("I", "F")):
        raise ImageError("unsupported_mode", f"expected 8 bits a channel, received mode {image.mode}")
    mode = MODES[spec.channels]
    # JPEG can be unpacked at 1/2, 1/4 or 1/8 of its size. Twice the target keeps the resize close to exact
    # and takes 0.7 of the time; the longer side serves both, for orientation may yet swap them.
    enough = 2 * max(spec.height, spec.width)
    try:
        image.draft(mode, (enough, enough))
        upright = ImageOps.exif_transpose(image).convert(mode)
        if upright.size != (spec.width, spec.height):
            upright = upright.resize((spec.width, spec.height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    except OSError as error:
        raise ImageError("truncated", f"the pixels end early or are damaged: {error}") from error
    except Exception as error:
        # Pillow's readers raise almost anything on a damaged file; whatever it is, it is this image's fault alone.
        raise ImageError("unreadable", f"{type(error).__name__}: {error}") from error
    # (height, width) or (height, width, 3) uint8 -> (height, width, channels) uint8
    return np.asarray(upright).reshape(spec.shape)
