"""report.html of an image set. Equal contents give an equal page: it does not show when it was made."""

import math
from bisect import bisect
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from cnnlib.image_set.contract import ImageSet
from cnnlib.image_set.splits import SPLITS
from cnnlib.reports.page import MOST_OPEN, render_page, settings_as_text, thumbnail_scale
from cnnlib.sources.left_out import in_words

# The page must stay below 10 MB, and base64 makes 4 bytes of 3. So limit the bytes of all samples with their tags.
MOST_SAMPLE_BYTES = 6_000_000
TAG_BYTES = 40

IMBALANCED = 10
MOST_COPIES = 10
MOST_SIZES = 10

CHANNEL_NAMES = {1: ("grey",), 3: ("red", "green", "blue")}
# The lower ends of the bins of the size histogram, in pixels: 1, 2, 3, 4, 6, 8, 12, 16, 24 …
SIDES = tuple(sorted({2**n for n in range(20)} | {3 * 2**n for n in range(19)}))
# (width, height)
ASPECT_RATIOS = ((1, 3), (1, 2), (9, 16), (2, 3), (3, 4), (1, 1), (4, 3), (3, 2), (16, 9), (2, 1), (3, 1))


@dataclass(frozen=True)
class Reject:
    """An image that could not be used, with a thumbnail if it could be decoded at all."""

    path: str
    message: str
    thumbnail: bytes | None = None


@dataclass(frozen=True)
class Conflict:
    """Images with equal pixels under more than one class: (class name, path) of each copy, and a thumbnail if known."""

    copies: Sequence[tuple[str, str]]
    thumbnail: bytes | None = None


@dataclass(frozen=True)
class ReportContents:
    """Everything that the report shows.

    - `sizes`: the number of source images by (height, width).
    - `samples`: thumbnails by class name, or by "" in a set without labels. `page.thumbnail` makes them.
    - `rejects`: the number of rejects by code; `reject_examples` has some of each.
    - `conflicts`: the first ones of `conflict_count` images.
    """

    image_set: ImageSet
    sizes: Mapping[tuple[int, int], int]
    samples: Mapping[str, Sequence[bytes]]
    rejects: Mapping[str, int]
    reject_examples: Mapping[str, Sequence[Reject]]
    conflicts: Sequence[Conflict]
    conflict_count: int


@dataclass(frozen=True)
class _ClassCounts:
    """One row of the class table: the images of a class, in all, and in each split that has images."""

    label: int
    name: str
    images: int
    by_split: dict[str, int]


def render_report(contents: ReportContents) -> str:
    """Render the whole page as HTML."""
    image_set, sizes = contents.image_set, contents.sizes
    height, width, _ = image_set.image.shape
    split_rows = {name: image_set.splits[name].rows for name in SPLITS if image_set.splits[name].rows}
    classes = _class_counts(image_set, list(split_rows))
    by_size = sorted((row for row in classes if row.images), key=lambda row: -row.images)
    samples = _samples_within(contents.samples, image_set.classes or ("",))
    return render_page(
        "image_set.html",
        contents=contents,
        image_set=image_set,
        split_rows=split_rows,
        classes=classes,
        by_size=by_size,
        chart=_stacked_chart(by_size) if len(classes) > MOST_OPEN else {},
        samples=samples,
        left_out_files=in_words(image_set.left_out),
        left_out=sum(len(contents.samples.get(name, ())) - len(taken) for name, taken in samples.items()),
        sample_scale=thumbnail_scale(height, width),
        common_sizes=sorted(sizes.items(), key=lambda item: (-item[1], item[0])),
        smaller=sum(images for (high, wide), images in sizes.items() if high < height or wide < width),
        sides=_shorter_sides(sizes),
        ratios=_aspect_ratios(sizes),
        rejects=sorted(contents.rejects.items(), key=lambda item: (-item[1], item[0])),
        channels=list(zip(CHANNEL_NAMES[image_set.image.channels], image_set.mean, image_set.std, strict=True)),
        settings=settings_as_text(image_set.settings),
        IMBALANCED=IMBALANCED,
        MOST_COPIES=MOST_COPIES,
        MOST_SIZES=MOST_SIZES,
    )


def _class_counts(image_set: ImageSet, splits: Sequence[str]) -> list[_ClassCounts]:
    counts = {split: image_set.splits[split].class_counts for split in splits}
    by_label = [{split: counts[split][label] for split in splits} for label in range(len(image_set.classes))]
    return [
        _ClassCounts(label, name, sum(by_split.values()), by_split)
        for label, (name, by_split) in enumerate(zip(image_set.classes, by_label, strict=True))
    ]


def _stacked_chart(rows: Sequence[_ClassCounts]) -> dict[str, str]:
    """Return a stacked bar chart as one SVG path per split. A class is 1 unit wide; the highest bar is 100 units high.

    A path reaches up to the sum of its split and those before it. So draw the last path first.

    >>> _stacked_chart([_ClassCounts(0, "cat", 4, {"train": 3, "val": 1})])
    {'train': 'M0 100V25h1V100z', 'val': 'M0 100V0h1V100z', 'test': 'M0 100V0h1V100z'}
    """
    highest = max((row.images for row in rows), default=1)
    paths = {}
    levels = [0] * len(rows)
    for split in SPLITS:
        levels = [level + row.by_split.get(split, 0) for level, row in zip(levels, rows, strict=True)]
        steps = (f"V{round(100 - 100 * level / highest, 1):g}h1" for level in levels)
        paths[split] = "M0 100" + "".join(steps) + "V100z"
    return paths


def _samples_within(samples: Mapping[str, Sequence[bytes]], names: Sequence[str]) -> dict[str, list[bytes]]:
    """Choose as many samples as fit on the page: the first of each class, then the second of each class, and so on."""
    taken: dict[str, list[bytes]] = {name: [] for name in names}
    room = MOST_SAMPLE_BYTES
    for turn in zip_longest(*(samples.get(name, ()) for name in names)):
        for name, picture in zip(names, turn, strict=True):
            if picture is None:
                continue
            room -= len(picture) + TAG_BYTES
            if room < 0:
                return taken
            taken[name].append(picture)
    return taken


def _shorter_sides(sizes: Mapping[tuple[int, int], int]) -> list[tuple[str, int]]:
    """Count images by the bin of their shorter side, from the first to the last bin that has an image.

    >>> _shorter_sides({(28, 30): 5, (70, 64): 1})
    [('24 to 31', 5), ('32 to 47', 0), ('48 to 63', 0), ('64 to 95', 1)]
    """
    bins: Counter[int] = Counter()
    for (height, width), images in sizes.items():
        bins[bisect(SIDES, min(height, width)) - 1] += images
    return [
        (f"{SIDES[i]} to {SIDES[i + 1] - 1}" if SIDES[i] + 1 < SIDES[i + 1] else str(SIDES[i]), bins[i])
        for i in range(min(bins, default=0), max(bins, default=-1) + 1)
    ]


def _aspect_ratios(sizes: Mapping[tuple[int, int], int]) -> list[tuple[str, int]]:
    """Count images by width to height. Each image counts for the nearest common ratio.

    >>> _aspect_ratios({(100, 100): 5, (480, 640): 2})
    [('1:1', 5), ('4:3', 2)]
    """
    logs = [math.log(width / height) for width, height in ASPECT_RATIOS]
    bins: Counter[int] = Counter()
    for (height, width), images in sizes.items():
        ratio = math.log(width / height)
        bins[min(range(len(logs)), key=lambda i: abs(logs[i] - ratio))] += images
    return [
        ("{}:{}".format(*ASPECT_RATIOS[i]), bins[i]) for i in range(min(bins, default=0), max(bins, default=-1) + 1)
    ]
