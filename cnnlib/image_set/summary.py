"""What the rows of a settled ledger add up to: counts, statistics, the fingerprint, and examples for the report."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cnnlib.image_set.contract import CODE, IMAGE_ID, MESSAGE, PATH
from cnnlib.image_set.ledger import (
    CHANNEL_SQUARE_SUMS,
    CHANNEL_SUMS,
    CLASS_NAME,
    CONFLICTING,
    HEIGHT,
    KEPT,
    OUTCOME,
    PART,
    PIXEL_ID,
    ROW,
    SPLIT,
    THUMBNAIL,
    WIDTH,
)
from cnnlib.image_set.splits import TRAIN
from cnnlib.sealed.frozen.images import ImageSpec

# Examples of a kind (a class, a code) that the report shows, and conflicts.
SHOWN = 8

_FINGERPRINT_MODULUS = 2**256


@dataclass
class Examples:
    """The first `SHOWN` of a kind, by an id that is the same in every run, however rows are divided into tasks.

    `kept` by class name: (pixel id, data file, row); `rejected` by code: (path, message, PNG or None); `conflicts` by
    pixel id: (class name, path, PNG or None, data file, row).
    """

    kept: dict[str | None, list[tuple[str, str, int]]] = field(default_factory=dict)
    rejected: dict[str, list[tuple[str, str, bytes | None]]] = field(default_factory=dict)
    conflicts: dict[str, list[tuple[str, str, bytes | None, str, int]]] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any]) -> None:
        """Keep a row if it is among the first."""
        if row[OUTCOME] == KEPT:
            _keep_first(self.kept.setdefault(row[CLASS_NAME], []), [(row[PIXEL_ID], row[PART], row[ROW])])
        elif row[CODE] is not None:
            _keep_first(self.rejected.setdefault(row[CODE], []), [(row[PATH], row[MESSAGE], row[THUMBNAIL])])
        if row[CONFLICTING]:
            copies = self.conflicts.setdefault(row[PIXEL_ID], [])
            _keep_first(copies, [(row[CLASS_NAME], row[PATH], row[THUMBNAIL], row[PART], row[ROW])])
            self._drop_last_conflict()

    def __add__(self, other: "Examples") -> "Examples":
        total = Examples()
        for part in (self, other):
            for name in ("kept", "rejected", "conflicts"):
                for key, examples in getattr(part, name).items():
                    _keep_first(getattr(total, name).setdefault(key, []), examples)
        while len(total.conflicts) > SHOWN:
            total._drop_last_conflict()
        return total

    def _drop_last_conflict(self) -> None:
        if len(self.conflicts) > SHOWN:
            del self.conflicts[max(self.conflicts)]


@dataclass
class LedgerSummary:
    """Sums over ledger rows. Tallies of several tasks add up with `+`.

    `channel_sums` and `channel_square_sums` are exact integers over the train pixels; `content_sum` is the sum of the
    kept rows' digests modulo 2**256, which does not depend on their order (a multiset hash: D. Clarke et al.,
    "Incremental Multiset Hash Functions", 2003, MSet-Add-Hash). `class_counts` has kept images by split and class
    name, `sizes` source images by (height, width).
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    conflicting: int = 0
    class_counts: Counter[tuple[str, str | None]] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    channel_sums: Counter[int] = field(default_factory=Counter)
    channel_square_sums: Counter[int] = field(default_factory=Counter)
    content_sum: int = 0
    examples: Examples = field(default_factory=Examples)

    @property
    def found(self) -> int:
        """All images."""
        return self.outcomes.total()

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one row of a settled ledger."""
        self.outcomes[row[OUTCOME]] += 1
        self.conflicting += bool(row[CONFLICTING])
        self.examples.add(row)
        if row[CODE] is not None:
            self.rejected[row[CODE]] += 1
            return
        self.sizes[row[HEIGHT], row[WIDTH]] += 1
        if row[OUTCOME] != KEPT:
            return
        self.class_counts[row[SPLIT], row[CLASS_NAME]] += 1
        self.content_sum += row_digest(row[IMAGE_ID], row[PIXEL_ID], row[CLASS_NAME], row[SPLIT])
        self.content_sum %= _FINGERPRINT_MODULUS
        if row[SPLIT] == TRAIN:
            self.channel_sums.update(dict(enumerate(row[CHANNEL_SUMS])))
            self.channel_square_sums.update(dict(enumerate(row[CHANNEL_SQUARE_SUMS])))

    def __add__(self, other: "LedgerSummary") -> "LedgerSummary":
        return LedgerSummary(
            self.outcomes + other.outcomes,
            self.rejected + other.rejected,
            self.conflicting + other.conflicting,
            self.class_counts + other.class_counts,
            self.sizes + other.sizes,
            self.channel_sums + other.channel_sums,
            self.channel_square_sums + other.channel_square_sums,
            (self.content_sum + other.content_sum) % _FINGERPRINT_MODULUS,
            self.examples + other.examples,
        )

    def rows(self, split: str) -> int:
        """Kept images of a split."""
        return sum(count for (name, _), count in self.class_counts.items() if name == split)

    def fingerprint(self, spec: ImageSpec, classes: tuple[str, ...], quality: int) -> str:
        """The fingerprint of a whole set: SHA-256 over its rows' digests, its image spec and its classes.

        `quality` is that of JPEG, where the set is encoded so: the rows' digests are of the pixels before.
        """
        image = f"{spec!r}, quality {quality}" if spec.encoding == "jpeg" else repr(spec)
        text = "\0".join((f"{self.content_sum:064x}", str(self.outcomes[KEPT]), image, *classes))
        return hashlib.sha256(text.encode()).hexdigest()

    def channel_statistics(self, spec: ImageSpec) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Per-channel mean and standard deviation of the train pixels, in 0 to 1; zeros and ones without any."""
        count = self.rows(TRAIN) * spec.height * spec.width
        if not count:
            return (0.0,) * spec.channels, (1.0,) * spec.channels
        means, deviations = [], []
        for channel in range(spec.channels):
            mean = self.channel_sums[channel] / count
            means.append(mean / 255)
            squares = self.channel_square_sums[channel] / count
            deviations.append(max(squares - mean * mean, 0.0) ** 0.5 / 255)
        return tuple(means), tuple(deviations)


def row_digest(image_id: str, pixel_id: str, class_name: str | None, split: str) -> int:
    """A 256-bit digest of one row: which file it was, its pixels, its class and its split."""
    text = "\0".join((image_id, pixel_id, class_name or "", split))
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")


def _keep_first(examples: list[Any], more: Iterable[Any]) -> None:
    """Add `more` to the examples, and keep the first by their first two fields."""
    for example in more:
        if len(examples) < SHOWN or _order(example) < _order(examples[-1]):
            examples.append(example)
            examples.sort(key=_order)
            del examples[SHOWN:]


def _order(example: Sequence[Any]) -> tuple[str, str]:
    return str(example[0]), str(example[1])
