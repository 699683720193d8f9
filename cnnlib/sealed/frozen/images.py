"""Decode image files to pixels: the one decoder of training and scoring.

This module travels inside every registered model (see `cnnlib.sealed.seal`), so a model always sees the same pixels. It
therefore imports nothing of this project except its neighbours, with relative imports.

The first bytes of a file decide its format, not its name: JPEG, PNG, BMP, PPM (also PGM and PBM), JPEG 2000, WebP, GIF
and AVIF (first frame of an animation), TIFF (first page), and HEIF if the package pillow-heif is installed. The decoder
turns the image upright by its EXIF orientation, makes it grey or RGB, and resizes it.

| in the file | becomes |
|---|---|
| grey of 1, 2, 4 or 8 bits | 0 to 255, black to white |
| grey of 12 or 16 bits | its upper 8 bits; dark, if the file uses only few of its 16 bits |
| RGB of 16 bits per channel | the upper 8 bits of each |
| palette | its colours |
| CMYK, YCCK | RGB = (255 - CMY) * (255 - K) / 255; a JPEG counts as inverted, as Adobe writes it |
| YCbCr, CIELAB | RGB |
| transparency of a pixel or of a palette colour | dropped: the colour below it shows |
| colour profile, gamma | ignored |
| integers of 32 bits or with a sign, floats, JPEG of 12 bits, others that Pillow cannot read | unsupported_mode |

RGB becomes grey by the luma of ITU-R 601-2. Grey becomes RGB with three equal channels.
"""

import contextlib
import ctypes
import io
import logging
import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import PIL.ImageFile
from PIL import Image, features
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from .containers import PNG_SIGNATURE, check_jpeg_2000, check_ppm, refuse_above, without_needless_chunks
from .errors import ImageError

Resize = Literal["stretch", "fit_and_pad", "shorter_side_and_crop", "none"]
Encoding = Literal["raw", "png", "jpeg"]
MODES = {1: "L", 3: "RGB"}

# Above this, Pillow warns of a decompression bomb.
MAX_PIXELS = 89_478_485


class _FirstOfGif(GifImageFile):
    # `disposal_method` says what happens to a frame before the next one. No next frame is read, so nothing does. For
    # other methods, Pillow allocates a canvas while it opens the file, before its size can be checked.
    disposal_method = property(lambda self: 0, lambda self, method: None)


def _avif_reader() -> type[ImageFile] | None:
    try:
        from PIL import AvifImagePlugin
    except ImportError:  # Pillow before 11.3
        return None
    # A Spark task has one core, and decodes one image after the other.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    return AvifImagePlugin.AvifImageFile if AvifImagePlugin.SUPPORTED else None


def _heif_reader() -> type[ImageFile] | None:
    try:
        import pillow_heif
    except ImportError:
        return None
    pillow_heif.options.DECODE_THREADS = 1
    return pillow_heif.HeifImageFile


@dataclass(frozen=True)
class _Format:
    """A file format: a pattern of its first bytes, its reader, and what must be installed if there is no reader."""

    name: str
    first_bytes: re.Pattern[bytes]
    reader: type[ImageFile] | None
    needs: str = ""


_JPEG_SIGNATURE = b"\xff\xd8\xff"
_FORMATS = (
    _Format("JPEG", re.compile(re.escape(_JPEG_SIGNATURE)), JpegImageFile),
    _Format("PNG", re.compile(re.escape(PNG_SIGNATURE)), PngImageFile),
    _Format("WebP", re.compile(rb"RIFF....WEBPVP8[ XL]", re.DOTALL), WebPImageFile),
    _Format("GIF", re.compile(rb"GIF8[79]a"), _FirstOfGif),
    # A text may also begin with BM. In a BMP, the length of the next header follows, and it is one of seven.
    _Format("BMP", re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL), BmpImageFile),
    _Format("TIFF", re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImageFile),
    # A text may also begin with P1. In a PPM, a number or a comment follows.
    _Format("PPM", re.compile(rb"P[1-6]\s+[#\d]"), PpmImageFile),
    _Format(
        "JPEG 2000",
        re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"),
        Jpeg2KImageFile if features.check("jpg_2000") else None,
        "a Pillow with OpenJPEG",
    ),
    _Format(
        "AVIF", re.compile(rb"....ftyp(avi[fs]|m[is]f1.{4,16}avif)", re.DOTALL), _avif_reader(), "Pillow 11.3 or newer"
    ),
    _Format(
        "HEIF",
        re.compile(rb"....ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", re.DOTALL),
        _heif_reader(),
        "the package pillow-heif",
    ),
)
# This many bytes tell the format of a file.
FIRST_BYTES = 32
# The words in which a reader says that it does not know this kind of file, which may be intact.
_UNSUPPORTED = re.compile(
    r"cannot handle|unable to determine|[Uu]nsupported|not (yet )?supported|not available|unknown pixel mode"
)

# A few KB can hold many scans, and each visits all pixels. Real files have about 10. libtiff has the same limit.
_MAX_JPEG_SCANS = 100
# Pillow joins the parts of EXIF data one by one, in quadratic time: 0.4 s for a file of 1 MB. Smaller files are not
# counted.
_MAX_EXIF_PARTS, _UNCOUNTED_BYTES = 100, 1_000_000
# What is missing of a cut JPEG has one colour.
_MOSTLY_MISSING = 0.95
# A JPEG that Pillow unpacks at a fraction of its size may have this many times the pixels of the limit. A larger one
# would take too long to read.
_MOST_REDUCED = 8
# Pillow unpacks the run lengths of a BMP in Python, at 5 to 10 million pixels/s, and a PPM whose values are text, or of
# an odd number of bits, at 1 to 2 million.
_MAX_PIXELS_IN_PYTHON = 10_000_000
_UNPACKED_IN_PYTHON = ("bmp_rle", "ppm_plain", "ppm")

# The operations that turn the EXIF orientations 2 to 8 upright.
_TURNS = "FLIP_LEFT_RIGHT ROTATE_180 FLIP_TOP_BOTTOM TRANSPOSE ROTATE_270 TRANSVERSE ROTATE_90"
_TURN_UPRIGHT = {number: Image.Transpose[name] for number, name in enumerate(_TURNS.split(), 2)}
# Tag numbers in EXIF and TIFF.
_SUBFILE_TYPE, _WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _ORIENTATION = 254, 256, 257, 258, 262, 274
_PALETTE, _TILE_WIDTH, _TILE_HEIGHT = 320, 322, 323

# Pillow first reduces an image by a whole factor to at least twice the target, then resizes it. The result is close to
# the exact one, in 0.7 of the time.
_REDUCING_GAP = 2

# Pillow warns of damaged metadata and large images, and logs some errors. Its libtiff prints errors by itself. All of
# this is either in an ImageError or does not matter.
_NOISY = r"PIL\.(Image|PngImagePlugin|TiffImagePlugin)$"
_SILENCE = ("ignore", None, Warning, re.compile(_NOISY), 0)
logging.getLogger("PIL").addHandler(logging.NullHandler())
with contextlib.suppress(AttributeError, OSError, TypeError):
    # Pillow has a libtiff of its own, and switches off the warnings of it in the same way.
    _set_error_handler = ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler
    _set_error_handler.argtypes, _set_error_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
    _set_error_handler(None)


@dataclass(frozen=True)
class ImageSpec:
    """The size and channels of the images that a model takes, and how a set stores them.

    `height` and `width` are in pixels, `channels` is 1 (grey) or 3 (RGB). `encoding` is how a set stores an image.
    `resize` is how an image of another size is brought to this one:

    - stretch: to exactly this size; its proportions change.
    - fit_and_pad: to the largest size that fits, with its proportions; it is centred, and black fills the rest.
    - shorter_side_and_crop: to the smallest size that covers this one, with its proportions; the middle is kept.
    - none: not at all; it is refused (too_small, too_many_pixels).

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
        """(height, width, channels), in the order of Keras."""
        return self.height, self.width, self.channels

    @property
    def size_bytes(self) -> int:
        """Bytes of one raw image.

        >>> ImageSpec(28, 28, 1).size_bytes
        784
        """
        return self.height * self.width * self.channels

    def as_dict(self) -> dict[str, Any]:
        """Return the keys of `dataset.json`."""
        return asdict(self)


@dataclass(frozen=True)
class Limits:
    """Limits for a file, checked by its header before any pixel is unpacked.

    - `max_pixels`: width * height. Unpacking takes 4 to 20 bytes of memory per pixel. Above 178,956,970 pixels, Pillow
      itself refuses GIF, TIFF and WebP. Of a JPEG that is unpacked smaller, the pixels that are unpacked count; the
      whole image may have 8 times as many as the limit.
    - `max_bytes`: size of the file; None for no limit.
    - `min_side`: in pixels.
    - `keep_truncated`: take what is there of a JPEG whose end is missing. Its rest is grey.
    """

    max_pixels: int = MAX_PIXELS
    max_bytes: int | None = None
    min_side: int = 1
    keep_truncated: bool = False


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class DecodedImage:
    """`pixels` (height, width, channels) uint8, and the size of the upright source in pixels, before resizing.

    `truncated` says that the end of the file is missing.
    """

    pixels: np.ndarray
    source_height: int
    source_width: int
    truncated: bool = False


def read_image(content: bytes, spec: ImageSpec, limits: Limits = DEFAULT_LIMITS) -> DecodedImage:
    """Decode a file and bring it to the spec.

    Raises ImageError: empty_file, too_many_bytes, not_an_image, too_many_pixels, too_small, unsupported_mode,
    truncated, unreadable. It never raises anything else, whatever the bytes are.
    """
    try:
        return _decoded(content, spec, limits)
    except ImageError as error:
        if not limits.keep_truncated or error.code != "truncated" or not content.startswith(_JPEG_SIGNATURE):
            raise
        with _truncated_images_loaded():
            taken = replace(_decoded(content, spec, limits), truncated=True)
        _, counts = np.unique(taken.pixels.reshape(-1, spec.channels), axis=0, return_counts=True)
        if counts.max() > _MOSTLY_MISSING * counts.sum():
            raise ImageError("truncated", "hardly any of its pixels is there") from error
        return taken


def _decoded(content: bytes, spec: ImageSpec, limits: Limits) -> DecodedImage:
    with _opened(content, spec, limits) as image:
        upright, source = _upright(image, spec)
        # (height, width) or (height, width, 3) uint8 -> (height, width, channels) uint8
        pixels = np.asarray(_fitted(upright, source, spec)).reshape(spec.shape)
    return DecodedImage(pixels, source_height=source[1], source_width=source[0])


@contextlib.contextmanager
def _truncated_images_loaded() -> Iterator[None]:
    before, PIL.ImageFile.LOAD_TRUNCATED_IMAGES = PIL.ImageFile.LOAD_TRUNCATED_IMAGES, True
    try:
        yield
    finally:
        PIL.ImageFile.LOAD_TRUNCATED_IMAGES = before


def decode_image(content: bytes, spec: ImageSpec, limits: Limits = DEFAULT_LIMITS) -> np.ndarray:
    """Decode a file to the pixels of `read_image`, (height, width, channels) uint8. Raises ImageError as it does."""
    return read_image(content, spec, limits).pixels


def fit_array(pixels: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """Bring an array (height, width, channels) uint8 with 1 or 3 channels to the spec, as `decode_image` would.

    Raises ImageError: unsupported_mode for another type or number of channels; too_small or too_many_pixels if the
    spec does not resize and the size differs.
    """
    if pixels.shape == spec.shape and pixels.dtype == np.uint8:
        return pixels
    image = _from_array(pixels)
    return np.asarray(_fitted(image.convert(MODES[spec.channels]), image.size, spec)).reshape(spec.shape)


def encode_image(pixels: np.ndarray, encoding: Encoding, quality: int = 95) -> bytes:
    """Encode (height, width, 1 or 3) uint8 without metadata.

    The same pixels give the same bytes, but another version of Pillow may compress differently. raw and png are
    lossless. jpeg has a `quality` of 1 to 100, and stores colour at half the resolution.

    >>> encode_image(np.full((1, 2, 3), 7, np.uint8), "raw")
    b'\\x07\\x07\\x07\\x07\\x07\\x07'
    """
    if encoding == "raw":
        return pixels.tobytes()
    file = io.BytesIO()
    _from_array(pixels).save(file, encoding, **({"quality": quality} if encoding == "jpeg" else {}))
    return file.getvalue()


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode (height, width, 1 or 3) uint8 as PNG, which is lossless.

    >>> pixels = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    >>> bool((decode_image(encode_png(pixels), ImageSpec(3, 4, 1)) == pixels).all())
    True
    """
    return encode_image(pixels, "png")


@contextlib.contextmanager
def _opened(content: bytes, spec: ImageSpec, limits: Limits) -> Iterator[ImageFile]:
    """Read a file's header and check its limits. Any exception of the body becomes an ImageError."""
    if not content:
        raise ImageError("empty_file", "the file has no bytes")
    if limits.max_bytes is not None and len(content) > limits.max_bytes:
        raise ImageError("too_many_bytes", f"{len(content)} bytes exceed the limit of {limits.max_bytes}")
    format = _format_of(content)
    if format is None:
        names = ", ".join(format.name for format in _FORMATS)
        raise ImageError("not_an_image", f"it does not begin like a file of any of these formats: {names}")
    reader = format.reader
    if reader is None:
        raise ImageError("unsupported_mode", f"it is {format.name}, which needs {format.needs}")
    if _SILENCE not in warnings.filters:
        # Not once on import: if that happens within warnings.catch_warnings(), the filter is lost.
        warnings.filterwarnings("ignore", module=_NOISY)
    if reader is PngImageFile:
        content = without_needless_chunks(content)
    elif reader is PpmImageFile:
        check_ppm(content)
    elif reader is Jpeg2KImageFile:
        check_jpeg_2000(content, limits.max_pixels)
    file = io.BytesIO(content)
    try:
        if reader is JpegImageFile and len(content) > _UNCOUNTED_BYTES:
            refuse_above(_MAX_EXIF_PARTS, content.count(b"Exif\0\0"), "parts of EXIF data")
        image = reader(file)
        many_scans = isinstance(image, JpegImageFile) and _has_many_scans(image, content[: file.tell()])
        # All scans of an image wait in memory at its full size.
        _refuse_bomb(image, limits, unpacked=1 if many_scans else _reduction(image, spec) ** 2)
        if many_scans:
            # A scan's header begins with its marker and a length below 256.
            refuse_above(_MAX_JPEG_SCANS, content.count(b"\xff\xda\0"), "scans")
        yield image
    except ImageError:
        raise
    except Exception as error:
        # On a damaged file, Pillow's readers raise almost any exception. All of them concern this image alone.
        reason = f"{format.name}: {str(error) or type(error).__name__}"
        # A TIFF raises a KeyError with the number of an unknown compression, or of the palette's tag if it is missing.
        unknown = isinstance(error.__cause__, KeyError) and error.__cause__.args != (_PALETTE,)
        if isinstance(error, Image.DecompressionBombError):
            code = "too_many_pixels"
        elif unknown or _UNSUPPORTED.search(str(error)):
            code = "unsupported_mode"
        elif isinstance(error, OSError | EOFError) or file.tell() >= len(content):
            code, reason = "truncated", f"it ends early or is damaged; {reason}"
        else:
            code, reason = "unreadable", f"it is damaged, or no proper {format.name} file; {reason}"
        raise ImageError(code, reason) from error


def _format_of(content: bytes) -> _Format | None:
    return next((format for format in _FORMATS if format.first_bytes.match(content)), None)


def readable_formats() -> list[str]:
    """Return the names of the formats that this machine can decode.

    >>> {"JPEG", "PNG", "TIFF"} <= set(readable_formats())
    True
    """
    return [format.name for format in _FORMATS if format.reader is not None]


def begins_like_an_image(first_bytes: bytes) -> bool:
    """Return whether a file has a format of this module; `first_bytes` are its first FIRST_BYTES bytes, or more.

    >>> begins_like_an_image(encode_png(np.zeros((1, 1, 1), np.uint8))), begins_like_an_image(b"P5 is my favourite.")
    (True, False)
    """
    return _format_of(first_bytes) is not None


def _has_many_scans(image: JpegImageFile, header: bytes) -> bool:
    """Return whether other scans follow the first one: it lacks a channel or some bits.

    The header of the first scan is the end of the file's header.
    """
    first_scan = header[-8 - 2 * image.layers :]
    return "progressive" in image.info or not first_scan.startswith(b"\xff\xda")


def _reduction(image: ImageFile, spec: ImageSpec) -> int:
    """Return the whole number by which Pillow divides the sides of a JPEG when it unpacks it; 1 for other formats."""
    if not isinstance(image, JpegImageFile):
        return 1
    sideways = _orientation(image) >= 5
    width, height = _whole_size(image.size[::-1] if sideways else image.size, spec)
    smaller = min(image.width // (height if sideways else width), image.height // (width if sideways else height))
    return next((factor for factor in (8, 4, 2) if smaller >= factor), 1)


def _refuse_bomb(image: ImageFile, limits: Limits, unpacked: int) -> None:
    """Refuse an image that has too many or too few pixels; of `unpacked` pixels, one is unpacked."""
    pixels, limit = image.width * image.height, limits.max_pixels * min(unpacked, _MOST_REDUCED)
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    if _TILE_WIDTH in tags and _TILE_HEIGHT in tags:
        # Tiles are unpacked whole, even if little of them is inside the image.
        tile_width, tile_height = tags[_TILE_WIDTH], tags[_TILE_HEIGHT]
        tiles = math.ceil(tags[_WIDTH] / tile_width) * math.ceil(tags[_HEIGHT] / tile_height)
        pixels = tiles * tile_width * tile_height
    elif image.tile and image.tile[0][0] in _UNPACKED_IN_PYTHON:
        limit = min(limit, _MAX_PIXELS_IN_PYTHON)
    if pixels > limit:
        raise ImageError("too_many_pixels", f"{pixels} pixels exceed the limit of {limit}")
    if min(image.size) < limits.min_side:
        side = f"{image.width} x {image.height} (width x height)"
        raise ImageError("too_small", f"{side} has a side below the limit of {limits.min_side}")
    # The strips of a hostile TIFF may cover the image thousands of times. Strips per channel cover it up to six times.
    boxes = (tile[1] for tile in image.tile if tile[1])
    covered = sum((right - left) * (lower - upper) for left, upper, right, lower in boxes)
    if covered > 8 * pixels:
        raise ImageError("unreadable", f"its strips or tiles cover {covered} pixels, but the image has {pixels}")


def _upright(image: ImageFile, spec: ImageSpec) -> tuple[Image.Image, tuple[int, int]]:
    """Unpack the pixels, turn them upright and convert them to the spec's mode.

    A large JPEG may be unpacked smaller, but not below the size that the spec's resize needs. Returns the image and the
    (width, height) of the whole source.
    """
    mode = MODES[spec.channels]
    # A PPM of 16 bits has mode I too.
    if isinstance(image, TiffImageFile) and image.tag_v2.get(_SUBFILE_TYPE, 0) & 1:
        raise ImageError("unsupported_mode", "its first page is the thumbnail of another, as in raw images of cameras")
    if image.mode == "F" or (image.mode == "I" and not isinstance(image, PpmImageFile)):
        raise ImageError("unsupported_mode", f"expected up to 16 bits per channel without sign, received {image.mode}")
    source = None
    if isinstance(image, JpegImageFile):
        sideways = _orientation(image) >= 5
        source = image.size[::-1] if sideways else image.size
        width, height = _whole_size(source, spec)
        # Unpack it at 1/2, 1/4 or 1/8 of its size, if that is enough. Do not let it unpack to grey: the pixels would
        # differ from those of the same image in another format.
        image.draft(None, (height, width) if sideways else (width, height))
    image.load()
    upright = _converted(image, mode)
    # Pillow has turned a TIFF already, and removed its orientation.
    turn = _TURN_UPRIGHT.get(_orientation(image))
    if turn is not None:
        upright = upright.transpose(turn)
    return upright, source or upright.size


def _orientation(image: ImageFile) -> int:
    # Damaged metadata must not lose the image.
    with contextlib.suppress(Exception):
        orientation = image.getexif().get(_ORIENTATION)
        return orientation if orientation in _TURN_UPRIGHT else 1
    return 1


def _converted(image: ImageFile, mode: str) -> Image.Image:
    # If it is there, Pillow warns, and looks for a colour to mark as transparent.
    image.info.pop("transparency", None)
    if image.mode == mode:
        return image
    if image.mode.startswith("I"):
        return _upper_8_bits(image).convert(mode)
    # Pillow cannot convert CIELAB to grey directly.
    return (image.convert("RGB") if image.mode == "LAB" else image).convert(mode)


def _upper_8_bits(image: ImageFile) -> Image.Image:
    """Convert grey of 12 or 16 bits to mode L. Pillow's own conversion makes all values above 255 white."""
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    (bits,) = tags.get(_BITS, (16,))
    grey = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
    return Image.fromarray(255 - grey if tags.get(_PHOTOMETRIC) == 0 else grey)


def _whole_size(source: tuple[int, int], spec: ImageSpec) -> tuple[int, int]:
    """Return the (width, height) that the whole image is resized to, before it is padded or cropped.

    `source` is its own (width, height).

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
    """Resize an image to the spec's size. `source` is its (width, height) before `_upright` may have reduced it."""
    target = (spec.width, spec.height)
    if source == target:
        return image
    if spec.resize == "none":
        code = "too_small" if source[0] < spec.width or source[1] < spec.height else "too_many_pixels"
        sizes = f"{source[0]} x {source[1]} (width x height) is not {spec.width} x {spec.height}"
        raise ImageError(code, f"{sizes}, and image.resize none does not resize it")
    box, whole = None, _whole_size(source, spec)
    if spec.resize == "shorter_side_and_crop":
        scale = max(spec.width / source[0], spec.height / source[1])
        # The width and height that are cut off each side, in pixels and fractions of them.
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
