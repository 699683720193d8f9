"""Damage the files in tests/data/images at random, and decode these mutants.

`python -m tests.unit.fuzz_images --mutants 100000 --seed 1` (or `make fuzz MUTANTS=100000 SEED=1`) ends with exit
status 1 if a mutant gave neither pixels nor an ImageError with a known code, or took too much time or memory. A mutant
depends on the seed and its number: `--first N --mutants 1` makes number N again.
"""

import argparse
import faulthandler
import json
import struct
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

from cnnlib.errors import IMAGE_ERROR_CODES, ImageError
from cnnlib.sealed.frozen.images import DEFAULT_LIMITS, ImageSpec, Limits, decode_image
from tests.unit.bombs import peak_mb
from tests.unit.pictures import with_mended_checksums

FOLDER = Path(__file__).parents[1] / "data" / "images"
FORMATS = (".jpg", ".png", ".gif", ".webp", ".tif", ".bmp")

# A mutant may declare any size. A low limit on the pixels allows a low limit on the memory.
LIMITS = Limits(max_pixels=1_000_000)
MAX_SECONDS = 2.0
MAX_GROWTH_MB = 100.0
HANG_S = 60

INTERESTING = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def originals() -> list[tuple[str, bytes]]:
    """Return (name, content) of every file, sorted by name."""
    return [(path.name, path.read_bytes()) for path in sorted(FOLDER.iterdir()) if path.suffix in FORMATS]


def flip_bits(random: np.random.Generator, content: bytearray) -> None:
    for position in random.integers(0, len(content), random.integers(1, 9)):
        content[position] ^= 1 << random.integers(0, 8)


def set_bytes(random: np.random.Generator, content: bytearray) -> None:
    for position in random.integers(0, len(content), random.integers(1, 5)):
        content[position] = random.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, random.integers(0, 256)))


def set_number(random: np.random.Generator, content: bytearray) -> None:
    """Overwrite 2 or 4 bytes of the header with a number."""
    kind = random.choice(["<H", ">H", "<I", ">I"])
    position = random.integers(0, min(len(content), 200))
    number = struct.pack(kind, int(random.choice(INTERESTING)) % 256 ** struct.calcsize(kind))
    content[position : position + len(number)] = number


def set_tiff_field(random: np.random.Generator, content: bytearray) -> None:
    """Overwrite a tag, type, count or value in the first directory of a TIFF. In another file, overwrite a number."""
    order = ">" if content[:2] == b"MM" else "<"
    if content[:4] not in (b"II*\0", b"MM\0*") or len(content) < 8:
        return set_number(random, content)
    (directory,) = struct.unpack_from(order + "I", content, 4)
    if directory + 14 > len(content):
        return set_number(random, content)
    (entries,) = struct.unpack_from(order + "H", content, directory)
    entry = directory + 2 + 12 * int(random.integers(0, max(1, min(entries, (len(content) - directory - 14) // 12))))
    offset, kind = [(0, "H"), (2, "H"), (4, "I"), (8, "I")][random.integers(0, 4)]
    tags = (254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323, 324, 338, 339, 530)
    types = range(1, 19)
    value = int(random.choice(tags if offset == 0 else types if offset == 2 else INTERESTING))
    if random.random() < 0.3:
        value = int(random.integers(0, 70_000))
    struct.pack_into(order + kind, content, entry + offset, value % 256 ** struct.calcsize(kind))


def cut(random: np.random.Generator, content: bytearray) -> None:
    del content[random.integers(0, len(content)) :]


def move_slice(random: np.random.Generator, content: bytearray) -> None:
    """Copy a slice to another position, once or many times, or remove it."""
    start, length = random.integers(0, len(content)), int(random.integers(1, 64))
    piece = bytes(content[start : start + length])
    if random.random() < 0.5:
        del content[start : start + length]
    where = int(random.integers(0, len(content) + 1))
    content[where:where] = piece * int(random.choice((0, 1, 1, 2, 50)))


def mutant(seed: int, number: int, files: list[tuple[str, bytes]]) -> tuple[str, bytes]:
    """Make a mutant: (name of its original, content). The same seed and number give the same bytes."""
    random = np.random.default_rng([seed, number])
    name, original = files[random.integers(0, len(files))]
    content = bytearray(original)
    if random.random() < 0.15:
        other_name, other = files[random.integers(0, len(files))]
        name += "+" + other_name
        content[random.integers(0, len(content)) :] = other[random.integers(0, len(other)) :]
    mutations = (flip_bits, set_bytes, set_number, set_tiff_field, cut, move_slice)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        if content:
            mutations[random.choice(6, p=[0.25, 0.2, 0.2, 0.15, 0.1, 0.1])](random, content)
    if content[:4] == b"\x89PNG" and random.random() < 0.7:
        return name, with_mended_checksums(bytes(content))
    return name, bytes(content)


def outcome_of(content: bytes, number: int) -> str:
    """Decode a mutant. Return "pixels" or the code of an ImageError; anything else is a mistake of the decoder."""
    resize = ("stretch", "fit_and_pad", "shorter_side_and_crop", "none")[number % 4]
    # Without resizing, use the size of the originals.
    height, width = (24, 32) if resize == "none" else (10, 13)
    spec = ImageSpec(height, width, (1, 3)[number // 4 % 2], resize)  # type: ignore[arg-type]
    try:
        pixels = decode_image(content, spec, LIMITS)
    except ImageError as error:
        if "Warning" in error.message:
            return f"a warning: {error.message}"
        return error.code if error.code in IMAGE_ERROR_CODES else f"unknown code {error.code}"
    except BaseException as error:
        return f"raised {error!r}"
    return "pixels" if (pixels.shape, pixels.dtype) == (spec.shape, np.uint8) else f"{pixels.shape} {pixels.dtype}"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mutants", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--seed", type=int, default=None, help="seed of all mutants; the time by default")
    options = parser.parse_args()
    seed = int(time.time()) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    files = originals()
    for _, content in files:
        decode_image(content, ImageSpec(10, 13, 3), DEFAULT_LIMITS)
    before = peak_mb()
    outcomes: Counter[str] = Counter()
    slowest = (0.0, -1)
    mistakes = []
    for number in range(options.first, options.first + options.mutants):
        name, content = mutant(seed, number, files)
        # If the process dies, its last line of output shows which mutant killed it.
        print(f"mutant {number} of {name}".ljust(79), end="\r" if sys.stdout.isatty() else "\n", flush=True)
        faulthandler.dump_traceback_later(HANG_S, exit=True)
        started = time.process_time()
        outcome = outcome_of(content, number)
        seconds = time.process_time() - started
        outcomes[outcome] += 1
        slowest = max(slowest, (seconds, number))
        if outcome not in {"pixels", *IMAGE_ERROR_CODES} or seconds > MAX_SECONDS:
            mistakes.append(f"mutant {number} of {name}: {outcome} after {seconds:.2f} s")
    faulthandler.cancel_dump_traceback_later()
    growth = peak_mb() - before
    if growth > MAX_GROWTH_MB:
        mistakes.append(f"memory grew by {growth:.0f} MB")
    report = {
        "seed": seed,
        "outcomes": outcomes,
        "slowest_s_number": slowest,
        "growth_mb": growth,
        "mistakes": mistakes,
    }
    print(json.dumps(report))
    return 1 if mistakes else 0


if __name__ == "__main__":
    sys.exit(main())
