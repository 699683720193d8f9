"""Convolution and pooling by their definitions: code to read and to compare with, not code for speed.

In CNNs, "convolution" means cross-correlation: the kernel is not turned around before it is laid on the image. Source
of the arithmetic: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (2016).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cnnlib.errors import ConfigError

# One value for both sides, or (value for rows, value for columns).
Pair = int | tuple[int, int]
Padding = Pair | Literal["valid", "same"]


def output_size(
    size: int, kernel: int, *, stride: int = 1, padding: int | Literal["valid", "same"] = 0, dilation: int = 1
) -> int:
    """Return the number of output values of a convolution or a pooling along a side of `size` pixels.

    This is floor((size + 2 padding - dilation (kernel - 1) - 1) / stride) + 1: relationship 15 of Dumoulin and Visin,
    and their relationship 6 for a dilation of 1. `padding` is the number of zeros at each end. "valid" means none.
    "same" means as many as give ceil(size / stride). If their number is odd, one more comes after the side than before
    it, as in TensorFlow.

    Raises ConfigError if a number is too small, or if the kernel is larger than the padded side.

    >>> output_size(5, 3, stride=2, padding=1), output_size(224, 7, stride=2, padding="same"), output_size(28, 5)
    (3, 112, 24)
    """
    before, after = _margins(size, kernel, stride, padding, dilation)
    free = size + before + after - _extent(kernel, dilation)
    if free < 0:
        raise ConfigError(
            f"kernel={kernel} with dilation {dilation} covers {_extent(kernel, dilation)} pixels, the side has only "
            f"{size + before + after} with its padding; take a smaller kernel or more padding"
        )
    return free // stride + 1


def cross_correlate(
    image: np.ndarray, kernel: np.ndarray, *, stride: Pair = 1, padding: Padding = 0, dilation: Pair = 1
) -> np.ndarray:
    """Cross-correlate an image with a kernel: at each position, multiply pairs of values and add the products.

    `image` and `kernel` are both (height, width), or they are (height, width, channels) and (height, width, channels,
    filters), in Keras' order. The result is (rows, columns) or (rows, columns, filters), int64 for whole numbers and
    float64 otherwise. The value at row i, column j is the sum of image[i stride + m dilation, j stride + n dilation]
    kernel[m, n] over m and n, and over the channels. `padding` is as in `output_size`.

    Raises ConfigError for other shapes, and as `output_size` does.

    >>> cross_correlate(np.arange(9).reshape(3, 3), np.arange(4).reshape(2, 2))
    array([[19, 25],
           [37, 43]])
    """
    flat = image.ndim == 2 and kernel.ndim == 2
    image, kernel = (image[:, :, None], kernel[:, :, None, None]) if flat else (image, kernel)
    if image.ndim != 3 or kernel.ndim != 4 or image.shape[2] != kernel.shape[2]:
        raise ConfigError(
            f"kernel has shape {kernel.shape}, but image has {image.shape}; give (height, width) for both, or a "
            "kernel (height, width, channels, filters) and an image (height, width, channels)"
        )
    kernel = _widened(kernel)
    view = _View(image.shape[:2], kernel.shape[:2], _pair(stride), padding, _pair(dilation))
    # (rows, columns, filters)
    result = np.empty((*view.shape, kernel.shape[3]), np.result_type(_widened(image), kernel))
    for position, window in view.windows(_widened(image), fill=0):
        result[position] = np.tensordot(window, kernel, axes=3)
    return result[:, :, 0] if flat else result


def max_pool(image: np.ndarray, size: Pair, *, stride: Pair | None = None) -> np.ndarray:
    """Return the largest value of every window: (height, width) -> (rows, columns), with or without channels.

    The default `stride` is the size of the window. Pixels at the end that do not fill a window are left out. Raises
    ConfigError as `output_size` does.

    >>> max_pool(np.arange(9).reshape(3, 3), 2, stride=1)
    array([[4, 5],
           [7, 8]])
    """
    return _pool(image, size, stride, np.max)


def average_pool(image: np.ndarray, size: Pair, *, stride: Pair | None = None) -> np.ndarray:
    """Return the mean of every window, float64; all else is as in `max_pool`.

    >>> average_pool(np.arange(9).reshape(3, 3), 2, stride=1)
    array([[2., 3.],
           [5., 6.]])
    """
    return _pool(image, size, stride, np.mean)


@dataclass(frozen=True)
class ConvolutionCase:
    """Sizes of an image and of a convolution on it, each (for rows, for columns)."""

    image: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: Literal["valid", "same"]
    dilation: tuple[int, int]

    @property
    def output_shape(self) -> tuple[int, int]:
        """Shape of the output (rows, columns), by `output_size`."""
        return _View(self.image, self.kernel, self.strides, self.padding, self.dilation).shape


def draw_cases(count: int, seed: int) -> list[ConvolutionCase]:
    """Draw random cases that Keras can compute: with strides or with dilation, and a kernel that fits the image.

    >>> draw_cases(1, seed=0) == draw_cases(1, seed=0)
    True
    """
    random = np.random.default_rng(seed)

    def pair(smallest: int, largest: int) -> tuple[int, int]:
        rows, columns = random.integers(smallest, largest + 1, 2)
        return int(rows), int(columns)

    def case() -> ConvolutionCase:
        strides, dilation = (pair(1, 4), (1, 1)) if random.random() < 0.5 else ((1, 1), pair(1, 3))
        padding: Literal["valid", "same"] = "same" if random.random() < 0.5 else "valid"
        # A kernel of 5 with a dilation of 3 covers 13 pixels, so images have at least 13.
        return ConvolutionCase(pair(13, 40), pair(1, 5), strides, padding, dilation)

    return [case() for _ in range(count)]


@dataclass(frozen=True)
class _View:
    """The positions of a kernel or a window on an image."""

    image: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, int]
    padding: Padding
    dilation: tuple[int, int]

    @property
    def _by_side(self) -> list[tuple[int, int, int, int | Literal["valid", "same"], int]]:
        padding = (self.padding,) * 2 if isinstance(self.padding, str) else _pair(self.padding)
        return list(zip(self.image, self.kernel, self.strides, padding, self.dilation, strict=True))

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = (
            output_size(size, kernel, stride=stride, padding=padding, dilation=dilation)
            for size, kernel, stride, padding, dilation in self._by_side
        )
        return rows, columns

    def windows(self, image: np.ndarray, fill: float) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
        """Yield each position in the output, and the part of the image (height, width, channels) under the kernel."""
        margins = [_margins(*side) for side in self._by_side]
        padded = np.pad(image, (*margins, (0, 0)), constant_values=fill)
        for position in np.ndindex(self.shape):
            rows, columns = (
                slice(at * stride, at * stride + _extent(kernel, dilation), dilation)
                for at, stride, kernel, dilation in zip(position, self.strides, self.kernel, self.dilation, strict=True)
            )
            yield position, padded[rows, columns]


def _pool(image: np.ndarray, size: Pair, stride: Pair | None, reduce: Callable[..., np.ndarray]) -> np.ndarray:
    if image.ndim not in (2, 3):
        raise ConfigError(f"image has shape {image.shape}; give (height, width) or (height, width, channels)")
    values = image.reshape(*image.shape[:2], -1)
    view = _View(image.shape[:2], _pair(size), _pair(size if stride is None else stride), 0, (1, 1))
    # (rows, columns, channels)
    pooled = np.stack([reduce(window, axis=(0, 1)) for _, window in view.windows(values, fill=0)])
    return pooled.reshape(*view.shape, *image.shape[2:])


def _margins(
    size: int, kernel: int, stride: int, padding: int | Literal["valid", "same"], dilation: int
) -> tuple[int, int]:
    """Return the number of pixels to add before and after a side."""
    for name, number in (("size", size), ("kernel", kernel), ("stride", stride), ("dilation", dilation)):
        if number < 1:
            raise ConfigError(f"{name}={number} must be at least 1")
    if padding == "same":
        missing = max((-(-size // stride) - 1) * stride + _extent(kernel, dilation) - size, 0)
        return missing // 2, missing - missing // 2
    if padding == "valid":
        return 0, 0
    if isinstance(padding, str) or padding < 0:
        raise ConfigError(f"padding={padding}: give a number of pixels of 0 or more, valid or same")
    return padding, padding


def _extent(kernel: int, dilation: int) -> int:
    """Return the number of pixels that a kernel covers, with the gaps between its values."""
    return dilation * (kernel - 1) + 1


def _pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _widened(values: np.ndarray) -> np.ndarray:
    """Return the values as int64 or float64, because sums of uint8 products would overflow."""
    return values.astype(np.int64 if values.dtype.kind in "iub" else np.float64)
