"""Many photographs made of three that packages of the pinned requirements carry; the same ones in every run.

Each is a crop at a place, scale and brightness of its own, so no two have the same pixels, and lies in the folder of
its class: FOLDER/CLASS/NUMBER.jpg.
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
# class -> package and file; 640 x 427, 640 x 427 and 512 x 600 pixels.
ORIGINALS = {
    "china": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "portrait": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
}
LABELS = {name: label for label, name in enumerate(sorted(ORIGINALS))}
WIDTH, HEIGHT = 340, 300
# Pixels of a side to which the benchmarks of ingest bring a photograph.
SIZE = 96
# A large photograph is this many crops side by side and one above another.
LARGE_GRID = (8, 5)
IMAGES_A_TASK = 100

Make = Callable[[Image.Image, np.random.Generator], Image.Image]


def small(original: Image.Image, random: np.random.Generator) -> Image.Image:
    """A crop of about 340 x 300 pixels, 20 to 40 KB as JPEG."""
    width, height = (round(side * random.uniform(0.85, 1.15)) for side in (WIDTH, HEIGHT))
    return crop(original, random, width, height)


def large(original: Image.Image, random: np.random.Generator) -> Image.Image:
    """A mosaic of 2720 x 1500 pixels, about 1 MB as JPEG."""
    columns, rows = LARGE_GRID
    mosaic = Image.new("RGB", (columns * WIDTH, rows * HEIGHT))
    for left in range(0, mosaic.width, WIDTH):
        for top in range(0, mosaic.height, HEIGHT):
            mosaic.paste(crop(original, random, WIDTH, HEIGHT), (left, top))
    return mosaic


def crop(original: Image.Image, random: np.random.Generator, width: int, height: int) -> Image.Image:
    """A part of the original at 0.75 to 1.05 times its scale, brought to width x height."""
    scale = random.uniform(0.75, 1.05)
    wide, high = min(width / scale, original.width), min(height / scale, original.height)
    left, top = random.uniform(0, original.width - wide), random.uniform(0, original.height - high)
    part = original.resize((width, height), Image.Resampling.BICUBIC, (left, top, left + wide, top + high))
    return ImageEnhance.Brightness(part).enhance(random.uniform(0.7, 1.3))


def write_photographs(folder: Path, count: int, make: Make = small) -> None:
    """Write `count` photographs, in as many processes as there are cores."""
    originals = {name: files(package).joinpath(file).read_bytes() for name, (package, file) in ORIGINALS.items()}
    for name in originals:
        (folder / name).mkdir(parents=True)
    tasks = [range(first, min(first + IMAGES_A_TASK, count)) for first in range(0, count, IMAGES_A_TASK)]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for _ in pool.map(partial(write_some, folder, originals, make), tasks):
            pass


def write_some(folder: Path, originals: Mapping[str, bytes], make: Make, numbers: range) -> None:
    """Write the photographs of these numbers; what each looks like depends on its number alone."""
    images = [(name, Image.open(io.BytesIO(content)).convert("RGB")) for name, content in originals.items()]
    for number in numbers:
        name, original = images[number % len(images)]
        photograph = make(original, np.random.default_rng((SEED, number)))
        photograph.save(folder / name / f"{number:06d}.jpg", quality=QUALITY)


def draft_and_resize(content: bytes) -> np.ndarray:
    """Decode a JPEG as cheaply as Pillow can: (96, 96, 3) uint8.

    libjpeg unpacks it at 1/2, 1/4 or 1/8 where that still covers the target.
    """
    with Image.open(io.BytesIO(content)) as image:
        image.draft("RGB", (SIZE, SIZE))
        return np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def photographs_in(folder: Path) -> list[Path]:
    """All photographs of a folder by number, and so the classes in turns."""
    return sorted(folder.glob("*/*.jpg"), key=lambda path: path.name)


def link_first(count: int, source: Path, folder: Path) -> None:
    """Make a folder of the first `count` photographs of another, without copies of their bytes."""
    for path in photographs_in(source)[:count]:
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        os.link(path, folder / path.parent.name / path.name)
