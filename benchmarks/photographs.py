"""Make many photographs from three that come with packages of the pinned requirements.

Every run makes the same photographs. Each one is a crop with its own position, scale and brightness, so no two have the
same pixels. It is in the folder of its class: FOLDER/CLASS/NUMBER.jpg.
"""

import io
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.resources import files
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

SEED = 0
QUALITY = 85
# class -> (package, file). They have 640 x 427, 640 x 427 and 512 x 600 pixels.
ORIGINALS = {
    "china": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "portrait": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
}
LABELS = {name: label for label, name in enumerate(sorted(ORIGINALS))}
WIDTH, HEIGHT = 340, 300
# The benchmarks of ingest resize a photograph to this width and height.
SIZE = 96
# A large photograph is a mosaic with this many columns and rows of crops.
LARGE_GRID = (8, 5)
IMAGES_PER_TASK = 100

Make = Callable[[Image.Image, np.random.Generator], Image.Image]


def small(original: Image.Image, random: np.random.Generator) -> Image.Image:
    """Return a crop of about 340 x 300 pixels, 20 to 40 KB as JPEG."""
    width, height = (round(side * random.uniform(0.85, 1.15)) for side in (WIDTH, HEIGHT))
    return crop(original, random, width, height)


def large(original: Image.Image, random: np.random.Generator) -> Image.Image:
    """Return a mosaic of 2720 x 1500 pixels, about 1 MB as JPEG."""
    columns, rows = LARGE_GRID
    mosaic = Image.new("RGB", (columns * WIDTH, rows * HEIGHT))
    for left in range(0, mosaic.width, WIDTH):
        for top in range(0, mosaic.height, HEIGHT):
            mosaic.paste(crop(original, random, WIDTH, HEIGHT), (left, top))
    return mosaic


def crop(original: Image.Image, random: np.random.Generator, width: int, height: int) -> Image.Image:
    """Cut a random area out of the original, and scale it by 0.75 to 1.05 to width x height."""
    scale = random.uniform(0.75, 1.05)
    wide, high = min(width / scale, original.width), min(height / scale, original.height)
    left, top = random.uniform(0, original.width - wide), random.uniform(0, original.height - high)
    cropped = original.resize((width, height), Image.Resampling.BICUBIC, (left, top, left + wide, top + high))
    return ImageEnhance.Brightness(cropped).enhance(random.uniform(0.7, 1.3))


def write_photographs(folder: Path, count: int, make: Make = small) -> None:
    """Write `count` photographs, with one process per core."""
    originals = {name: files(package).joinpath(file).read_bytes() for name, (package, file) in ORIGINALS.items()}
    for name in originals:
        (folder / name).mkdir(parents=True)
    tasks = [range(first, min(first + IMAGES_PER_TASK, count)) for first in range(0, count, IMAGES_PER_TASK)]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for _ in pool.map(partial(write_some, folder, originals, make), tasks):
            pass


def write_some(folder: Path, originals: Mapping[str, bytes], make: Make, numbers: range) -> None:
    """Write the photographs with these numbers. The content of each depends only on its number."""
    images = [(name, Image.open(io.BytesIO(content)).convert("RGB")) for name, content in originals.items()]
    for number in numbers:
        name, original = images[number % len(images)]
        photograph = make(original, np.random.default_rng((SEED, number)))
        photograph.save(folder / name / f"{number:06d}.jpg", quality=QUALITY)


def draft_and_resize(content: bytes) -> np.ndarray:
    """Decode a JPEG as cheaply as Pillow can: (96, 96, 3) uint8.

    libjpeg decodes it at 1/2, 1/4 or 1/8 of its size if that is still at least the target size.
    """
    with Image.open(io.BytesIO(content)) as image:
        image.draft("RGB", (SIZE, SIZE))
        return np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def photographs_in(folder: Path) -> list[Path]:
    """Return all photographs of a folder, ordered by number. So the classes alternate."""
    return sorted(folder.glob("*/*.jpg"), key=lambda path: path.name)


def link_first(count: int, source: Path, folder: Path) -> None:
    """Make a folder with hard links to the first `count` photographs of another folder."""
    for path in photographs_in(source)[:count]:
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        os.link(path, folder / path.parent.name / path.name)
