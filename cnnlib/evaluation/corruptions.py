"""Mild damage to images that people hardly notice. A good model keeps its accuracy under it.

All but `shift` are about as strong as the mildest level of CIFAR-10-C (Hendrycks and Dietterich, "Benchmarking Neural
Network Robustness to Common Corruptions and Perturbations", 2019). The same image is always damaged in the same way.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.ndimage import gaussian_filter

from cnnlib.sealed.frozen.images import ImageSpec, decode_image, encode_image

NOISE = 0.04 * 255
BRIGHTER = 0.1 * 255
CONTRAST = 0.75
JPEG_QUALITY = 50
# Standard deviation of the blur: this fraction of the shorter side (one pixel of 224), and at least 0.4 pixels.
BLUR, MIN_BLUR = 1 / 224, 0.4
SHIFT = 1 / 14


def gaussian_noise(images: np.ndarray, image_ids: Sequence[str]) -> np.ndarray:
    """Add noise with a standard deviation of 4% of the range. The image's id is its seed."""
    draws = [np.random.default_rng(int(name[:16], 16)) for name in image_ids]
    noise = np.stack([draw.standard_normal(images.shape[1:], np.float32) for draw in draws])
    return _as_pixels(images + NOISE * noise)


def gaussian_blur(images: np.ndarray, image_ids: Sequence[str]) -> np.ndarray:
    """Blur with a standard deviation of 1/224 of the shorter side, and at least 0.4 pixels."""
    sigma = max(MIN_BLUR, BLUR * min(images.shape[1:3]))
    return _as_pixels(gaussian_filter(images.astype(np.float32), (0, sigma, sigma, 0), mode="nearest"))


def brightness(images: np.ndarray, image_ids: Sequence[str]) -> np.ndarray:
    """Make each pixel brighter by a tenth of the range."""
    return _as_pixels(images + np.float32(BRIGHTER))


def contrast(images: np.ndarray, image_ids: Sequence[str]) -> np.ndarray:
    """Reduce the distance of each pixel from the image's mean to three quarters."""
    mean = images.mean(axis=(1, 2, 3), keepdims=True, dtype=np.float32)
    return _as_pixels(mean + CONTRAST * (images - mean))


def jpeg_compression(images: np.ndarray, image_ids: Sequence[str]) -> np.ndarray:
    """Encode as a JPEG file of quality 50, and decode it."""
    height, width, channels = images.shape[1:]
    spec = ImageSpec(height, width, channels)
    return np.stack([decode_image(encode_image(image, "jpeg", JPEG_QUALITY), spec) for image in images])


def shift(images: np.ndarray, image_ids: Sequence[str]) -> np.ndarray:
    """Move down and to the right by 1/14 of each side, and repeat the edge."""
    height, width = images.shape[1:3]
    down, right = max(1, round(SHIFT * height)), max(1, round(SHIFT * width))
    padded = np.pad(images, ((0, 0), (down, 0), (right, 0), (0, 0)), mode="edge")
    return padded[:, :height, :width]


# Each takes (batch, height, width, channels) uint8 and the ids of the images, and returns an array of that shape.
CORRUPTIONS: dict[str, Callable[[np.ndarray, Sequence[str]], np.ndarray]] = {
    corruption.__name__: corruption
    for corruption in (gaussian_noise, gaussian_blur, brightness, contrast, jpeg_compression, shift)
}


def _as_pixels(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
