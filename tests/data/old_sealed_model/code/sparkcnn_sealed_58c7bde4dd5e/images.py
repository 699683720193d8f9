"""Encoded bytes -> pixels: the one decoder of training and scoring.

This module travels inside every registered model (see `cnnlib.sealed`), so that a model sees the same pixels
for ever. It therefore imports nothing of this project but `errors`, and that relatively.

A file is read as what its first bytes say, whatever its name: JPEG, PNG, BMP, WebP and GIF (of an animation the
first frame), TIFF (the first page). It is turned upright by its EXIF orientation, made grey or RGB, then resized.

| in the file | becomes |
|---|---|
| grey of 1, 2, 4 or 8 bits | 0 to 255, black to white |
| grey of 12 or 16 bits | its upper 8 bits: dark, where the file uses but few of its 16 |
| RGB of 16 bits a channel | the upper 8 bits of each |
| palette | its colours |
| CMYK, YCCK | RGB = (255 - CMY) * (255 - K) / 255; a JPEG of either is taken as inverted, as Adobe writes it |
| YCbCr, CIELAB | RGB |
| transparency, of a pixel or of a palette's colour | dropped: the colour below it shows |
| colour profile, gamma | ignored |
| integers of 32 bits or with a sign, floats, JPEG of 12 bits, all else unknown to Pillow | unsupported_mode |

RGB becomes grey by the luma of ITU-R 601-2, grey becomes RGB of three equal channels.
"""

import contextlib
import ctypes
import io
import logging
import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from .errors import ImageError

Resize = Literal["stretch", "fit_and_pad", "shorter_side_and_crop", "none"]
Encoding = Literal["raw", "png", "jpeg"]
MODES = {1: "L", 3: "RGB"}

# Where Pillow warns of a decompression bomb.
MAX_PIXELS = 89_478_485


class _FirstOfGif(GifImageFile):
    # What becomes of a frame before the next one: nothing, for none is read. Pillow would make a canvas for it while
    # it opens the file, before anyone can ask how large that is.
    disposal_method = property(lambda self: 0, lambda self, method: None)


# How a file begins, and who reads it.
_READERS: tuple[tuple[re.Pattern[bytes], type[ImageFile]], ...] = (
    (re.compile(rb"\xff\xd8\xff"), JpegImageFile),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImageFile),
    (re.compile(rb"RIFF....WEBPVP8[ XL]", re.DOTALL), WebPImageFile),
    (re.compile(rb"GIF8[79]a"), _FirstOfGif),
    # A text may begin with BM. In a BMP the length of the next header follows, one of seven.
    (re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL), BmpImageFile),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImageFile),
)
# How a reader says that a file may be sound, but is of a kind that it does not know.
_UNSUPPORTED = re.compile(r"cannot handle|[Uu]nsupported|not (yet )?supported|not available|unknown pixel mode")

# A few KB can hold this many scans, and each visits all pixels. Real files have some 10; libtiff has the same limit.
_MAX_JPEG_SCANS = 100
# Pillow joins the parts of EXIF data one after the other, in quadratic time: 0.4 s for a file of 1 MB.
_MAX_EXIF_PARTS, _UNCOUNTED_BYTES = 100, 1_000_000
# Pillow unpacks these in Python, at 5 to 10 million pixels a second.
_MAX_RUN_LENGTH_PIXELS = 10_000_000

# What turns the orientations 2 to 8 upright.
_TURNS = "FLIP_LEFT_RIGHT ROTATE_180 FLIP_TOP_BOTTOM TRANSPOSE ROTATE_270 TRANSVERSE ROTATE_90"
_TURN_UPRIGHT = {number: Image.Transpose[name] for number, name in enumerate(_TURNS.split(), 2)}
# Numbers of tags, in EXIF and TIFF.
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _ORIENTATION = 256, 257, 258, 262, 274
_PALETTE, _TILE_WIDTH, _TILE_HEIGHT = 320, 322, 323

# The image is halved and so on, cheaply, down to twice its target, then resized: close to exact, in 0.7 of the time.
_REDUCING_GAP = 2

# Pillow warns of damaged metadata and of large images, logs an error or two, and its libtiff prints errors by itself.
# All of it is said by an ImageError, or matters not.
_NOISY = r"PIL\.(Image|PngImagePlugin|TiffImagePlugin)$"
_SILENCE = ("ignore", None, Warning, re.compile(_NOISY), 0)
logging.getLogger("PIL").addHandler(logging.NullHandler())
with contextlib.suppress(AttributeError, OSError, TypeError):
    # The libtiff that Pillow brings is its own, and Pillow switches off its warnings in the same way.
    _set_error_handler = ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler
    _set_error_handler.argtypes, _set_error_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
    _set_error_handler(None)


@dataclass(frozen=True)
class ImageSpec:
    """What every image of a set looks like to a model.

    `height` and `width` in pixels, `channels` 1 (grey) or 3 (RGB); `encoding` how the set stores it. `resize` names
    how an image of another size is brought to this one:

    - stretch: its proportions change;
    - fit_and_pad: it keeps them, fits in as large as it can, lies in the middle, and black fills the rest;
    - shorter_side_and_crop: it keeps them, covers all as small as it can, and its middle is taken;
    - none: it is refused (too_small, too_many_pixels).

    Raises ValueError for another `resize` or `encoding`.
    """

    height: int
    width: int
    channels: int
    resize: Resize = "stretch"
    encoding: Encoding = "raw"

    def __post_init__(self) -> None:
        for name, choices in (("resize", get_args(Resize)), ("encoding", get_args(Encoding))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r}: choose one of {', '.join(choices)}")

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


@dataclass(frozen=True)
class Limits:
    """What a file may cost, told from its header before any pixel is unpacked.

    `max_pixels` (width * height; unpacking takes 4 to 20 bytes of memory a pixel), `max_bytes` of the file (None for
    no limit), `min_side` in pixels. Above 178,956,970 pixels Pillow itself refuses GIF, TIFF and WebP.
    """

    max_pixels: int = MAX_PIXELS
    max_bytes: int | None = None
    min_side: int = 1


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class DecodedImage:
    """`pixels` (height, width, channels) uint8; the source's own size in pixels, upright and before it was resized."""

    pixels: np.ndarray
    source_height: int
    source_width: int


def read_image(content: bytes, spec: ImageSpec, limits: Limits = DEFAULT_LIMITS) -> DecodedImage:
    """Decode a file and bring it to the spec.

    Raises ImageError: empty_file, too_many_bytes, not_an_image, too_many_pixels, too_small, unsupported_mode,
    truncated, unreadable. Nothing else is raised, whatever the bytes.
    """
    with _opened(content, limits) as image:
        upright, source = _upright(image, spec)
        # (height, width) or (height, width, 3) uint8 -> (height, width, channels) uint8
        pixels = np.asarray(_fitted(upright, source, spec)).reshape(spec.shape)
    return DecodedImage(pixels, source_height=source[1], source_width=source[0])


def decode_image(content: bytes, spec: ImageSpec, limits: Limits = DEFAULT_LIMITS) -> np.ndarray:
    """The pixels that `read_image` gives: (height, width, channels) uint8. Raises ImageError as it does."""
    return read_image(content, spec, limits).pixels


def fit_array(pixels: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """Bring an array (height, width, channels) uint8 with 1 or 3 channels to the spec, as `decode_image` would.

    Raises ImageError: unsupported_mode for another type or number of channels; too_small and too_many_pixels where
    the spec does not resize.
    """
    if pixels.shape == spec.shape and pixels.dtype == np.uint8:
        return pixels
    image = _from_array(pixels)
    return np.asarray(_fitted(image.convert(MODES[spec.channels]), image.size, spec)).reshape(spec.shape)


def encode_image(pixels: np.ndarray, encoding: Encoding, quality: int = 95) -> bytes:
    """Encode (height, width, 1 or 3) uint8 without metadata; the same pixels give the same bytes.

    raw and png lose nothing; `quality` 1 to 100 is that of jpeg, which stores colour at half the resolution. Another
    version of Pillow may compress differently.

    >>> encode_image(np.full((1, 2, 3), 7, np.uint8), "raw")
    b'\\x07\\x07\\x07\\x07\\x07\\x07'
    """
    if encoding == "raw":
        return pixels.tobytes()
    file = io.BytesIO()
    _from_array(pixels).save(file, encoding, **({"quality": quality} if encoding == "jpeg" else {}))
    return file.getvalue()


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode (height, width, 1 or 3) uint8 as PNG, without loss.

    >>> pixels = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    >>> bool((decode_image(encode_png(pixels), ImageSpec(3, 4, 1)) == pixels).all())
    True
    """
    return encode_image(pixels, "png")


@contextlib.contextmanager
def _opened(content: bytes, limits: Limits) -> Iterator[ImageFile]:
    """A file's header, read and within the limits. Whatever the block raises becomes an ImageError."""
    if not content:
        raise ImageError("empty_file", "the file has no bytes")
    if limits.max_bytes is not None and len(content) > limits.max_bytes:
        raise ImageError("too_many_bytes", f"{len(content)} bytes exceed the limit of {limits.max_bytes}")
    reader = next((reader for beginning, reader in _READERS if beginning.match(content)), None)
    if reader is None:
        raise ImageError("not_an_image", "it does not begin as a JPEG, PNG, BMP, GIF, TIFF or WebP file does")
    if _SILENCE not in warnings.filters:
        # Not once on import: whoever imports within warnings.catch_warnings() would undo it.
        warnings.filterwarnings("ignore", module=_NOISY)
    file = io.BytesIO(content)
    try:
        if reader is JpegImageFile and len(content) > _UNCOUNTED_BYTES:
            _refuse_above(_MAX_EXIF_PARTS, content.count(b"Exif\0\0"), "parts of EXIF data")
        image = reader(file)
        _refuse_bomb(image, limits)
        if isinstance(image, JpegImageFile) and _has_many_scans(image, content[: file.tell()]):
            # A scan's header begins with its marker and its length, which is below 256.
            _refuse_above(_MAX_JPEG_SCANS, content.count(b"\xff\xda\0"), "scans")
        yield image
    except ImageError:
        raise
    except Exception as error:
        # Pillow's readers raise almost anything on a damaged file; whatever it is, it is this image's fault alone.
        reason = f"{reader.format}: {str(error) or type(error).__name__}"
        # A TIFF gives a KeyError by the number of its compression, or of the palette's tag where that is missing.
        unknown = isinstance(error.__cause__, KeyError) and error.__cause__.args != (_PALETTE,)
        if isinstance(error, Image.DecompressionBombError):
            code = "too_many_pixels"
        elif unknown or _UNSUPPORTED.search(str(error)):
            code = "unsupported_mode"
        elif isinstance(error, OSError | EOFError) or file.tell() >= len(content):
            code, reason = "truncated", f"it ends early or is damaged; {reason}"
        else:
            code, reason = "unreadable", f"{type(error).__name__} in {reason}"
        raise ImageError(code, reason) from error


def _refuse_above(limit: int, count: int, what: str) -> None:
    if count > limit:
        raise ImageError("unreadable", f"{count} {what} exceed the limit of {limit}")


def _has_many_scans(image: JpegImageFile, header: bytes) -> bool:
    """Whether the first scan, whose header ends the file's, is not the only one: it lacks a channel or some bits."""
    first_scan = header[-8 - 2 * image.layers :]
    return "progressive" in image.info or not first_scan.startswith(b"\xff\xda")


def _refuse_bomb(image: ImageFile, limits: Limits) -> None:
    pixels, limit = image.width * image.height, limits.max_pixels
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    if _TILE_WIDTH in tags and _TILE_HEIGHT in tags:
        # Tiles are unpacked whole, however little of them lies within the image.
        tile_width, tile_height = tags[_TILE_WIDTH], tags[_TILE_HEIGHT]
        tiles = math.ceil(tags[_WIDTH] / tile_width) * math.ceil(tags[_HEIGHT] / tile_height)
        pixels = tiles * tile_width * tile_height
    elif isinstance(image, BmpImageFile) and image.tile[0][0] == "bmp_rle":
        limit = min(limit, _MAX_RUN_LENGTH_PIXELS)
    if pixels > limit:
        raise ImageError("too_many_pixels", f"{pixels} pixels exceed the limit of {limit}")
    if min(image.size) < limits.min_side:
        side = f"{image.width} x {image.height} (width x height)"
        raise ImageError("too_small", f"{side} has a side below the limit of {limits.min_side}")
    # Strips of a hostile TIFF may cover the image thousands of times; those of channels cover it up to six times.
    boxes = (tile[1] for tile in image.tile if tile[1])
    covered = sum((right - left) * (lower - upper) for left, upper, right, lower in boxes)
    if covered > 8 * pixels:
        raise ImageError("unreadable", f"its strips or tiles cover {covered} pixels of an image of {pixels}")


def _upright(image: ImageFile, spec: ImageSpec) -> tuple[Image.Image, tuple[int, int]]:
    """Unpack the pixels: upright, in the spec's mode, of all sizes that the spec's resize may start from.

    Gives them with the whole image's own (width, height).
    """
    mode = MODES[spec.channels]
    if image.mode in ("I", "F"):
        raise ImageError("unsupported_mode", f"expected up to 16 bits a channel without sign, received {image.mode}")
    source = None
    if isinstance(image, JpegImageFile):
        sideways = _orientation(image) >= 5
        source = image.size[::-1] if sideways else image.size
        width, height = _whole_size(source, spec)
        # It can be unpacked at 1/2, 1/4 or 1/8 of its size. Not as grey: that would be other pixels than its copy in
        # another format has.
        image.draft(None, (height, width) if sideways else (width, height))
    image.load()
    upright = _converted(image, mode)
    # Pillow has turned a TIFF already, and taken its orientation away.
    turn = _TURN_UPRIGHT.get(_orientation(image))
    if turn is not None:
        upright = upright.transpose(turn)
    return upright, source or upright.size


def _orientation(image: ImageFile) -> int:
    # Damaged metadata are no reason to lose the image.
    with contextlib.suppress(Exception):
        orientation = image.getexif().get(_ORIENTATION)
        return orientation if orientation in _TURN_UPRIGHT else 1
    return 1


def _converted(image: ImageFile, mode: str) -> Image.Image:
    # With it, Pillow would warn, and look for a colour to mark as transparent.
    image.info.pop("transparency", None)
    if image.mode == mode:
        return image
    if image.mode.startswith("I;16"):
        return _upper_8_bits(image).convert(mode)
    # There is no direct way from CIELAB to grey.
    return (image.convert("RGB") if image.mode == "LAB" else image).convert(mode)


def _upper_8_bits(image: ImageFile) -> Image.Image:
    """Grey of 12 or 16 bits -> mode L. Pillow's own conversion cuts off what is above 255."""
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    (bits,) = tags.get(_BITS, (16,))
    grey = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
    return Image.fromarray(255 - grey if tags.get(_PHOTOMETRIC) == 0 else grey)


def _whole_size(source: tuple[int, int], spec: ImageSpec) -> tuple[int, int]:
    """(width, height) to which the spec resizes a whole image of `source` (width, height), before padding or cropping.

    >>> [_whole_size((40, 30), ImageSpec(10, 10, 3, resize)) for resize in get_args(Resize)]
    [(10, 10), (10, 8), (13, 10), (40, 30)]
    """
    if spec.resize == "stretch":
        return spec.width, spec.height
    if spec.resize == "none":
        return source
    width, height = source
    scale = (min if spec.resize == "fit_and_pad" else max)(spec.width / width, spec.height / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _fitted(image: Image.Image, source: tuple[int, int], spec: ImageSpec) -> Image.Image:
    """Resize an image, which may have been reduced from `source` (width, height) already, to the spec's size."""
    target = (spec.width, spec.height)
    if source == target:
        return image
    if spec.resize == "none":
        code = "too_small" if source[0] < spec.width or source[1] < spec.height else "too_many_pixels"
        sizes = f"{source[0]} x {source[1]} (width x height) is not {spec.width} x {spec.height}"
        raise ImageError(code, f"{sizes}, and nothing is resized (image.resize none)")
    box, whole = None, _whole_size(source, spec)
    if spec.resize == "shorter_side_and_crop":
        scale = max(spec.width / source[0], spec.height / source[1])
        # What is cut off each side, in pixels and their fractions.
        x = max(0.0, (1 - spec.width / (source[0] * scale)) / 2) * image.width
        y = max(0.0, (1 - spec.height / (source[1] * scale)) / 2) * image.height
        box, whole = (x, y, image.width - x, image.height - y), target
    resized = image.resize(whole, Image.Resampling.BILINEAR, box, _REDUCING_GAP)
    if whole == target:
        return resized
    padded = Image.new(image.mode, target)
    padded.paste(resized, ((spec.width - whole[0]) // 2, (spec.height - whole[1]) // 2))
    return padded


def _from_array(pixels: np.ndarray) -> Image.Image:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in MODES or not pixels.size:
        raise ImageError(
            "unsupported_mode",
            f"expected at least one pixel (height, width, 1 or 3) uint8, received {pixels.shape} {pixels.dtype}",
        )
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
