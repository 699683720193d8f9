"""Add up the rows of a decided ledger: counts, statistics, the fingerprint, and examples for the report."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

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

# The report shows this many examples of each class and of each reject code, and this many conflicts.
SHOWN = 8

_FINGERPRINT_MODULUS = 2**256


@dataclass
class Examples:
    """The first `SHOWN` examples of each kind.

    They are ordered by an id that is the same in every run, so the split of the rows over tasks does not matter. `kept`
    by class name has (pixel id, part file, row); `rejected` by code has (path, message, PNG or None); `conflicts` by
    pixel id has (class name, path, PNG or None, part file, row).
    """

    kept: dict[str | None, list[tuple[str, str, int]]] = field(default_factory=dict)
    rejected: dict[str, list[tuple[str, str, bytes | None]]] = field(default_factory=dict)
    conflicts: dict[str, list[tuple[str, str, bytes | None, str, int]]] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any]) -> None:
        """Keep a ledger row if it is among the first of its kind."""
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
        for examples_of_tasks in (self, other):
            for name in ("kept", "rejected", "conflicts"):
                for key, examples in getattr(examples_of_tasks, name).items():
                    _keep_first(getattr(total, name).setdefault(key, []), examples)
        while len(total.conflicts) > SHOWN:
            total._drop_last_conflict()
        return total

    def _drop_last_conflict(self) -> None:
        if len(self.conflicts) > SHOWN:
            del self.conflicts[max(self.conflicts)]


@dataclass
class LedgerSummary:
    """Sums over ledger rows. `+` adds the summaries of several tasks up.

    `channel_sums` and `channel_square_sums` are exact integers over the train pixels. `content_sum` is the sum of the
    kept rows' digests modulo 2**256; it does not depend on their order (a multiset hash: D. Clarke et al., "Incremental
    Multiset Hash Functions", 2003, MSet-Add-Hash). `class_counts` counts kept images by split and class name, `sizes`
    counts source images by (height, width).
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
        """Number of all images: kept, duplicate and rejected."""
        return self.outcomes.total()

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one row of a decided ledger."""
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
        self.content_sum += _row_digest(row[IMAGE_ID], row[PIXEL_ID], row[CLASS_NAME], row[SPLIT])
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
        """Return the number of kept images in a split."""
        return sum(count for (name, _), count in self.class_counts.items() if name == split)

    def fingerprint(self, spec: ImageSpec, classes: tuple[str, ...], quality: int) -> str:
        """Return the fingerprint of a set: SHA-256 over its rows' digests, its image spec and its classes.

        `quality` is the JPEG quality; it counts only if the set stores JPEG. The rows' digests cannot show it, because
        they are of the pixels before encoding.
        """
        image = f"{spec!r}, quality {quality}" if spec.encoding == "jpeg" else repr(spec)
        text = "\0".join((f"{self.content_sum:064x}", str(self.outcomes[KEPT]), image, *classes))
        return hashlib.sha256(text.encode()).hexdigest()

    def channel_statistics(self, spec: ImageSpec) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return the mean and standard deviation of the train pixels per channel, scaled to 0 to 1.

        Without train images the means are 0 and the deviations 1.
        """
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


def summarise_rows(batches: Iterable[pa.RecordBatch], task: int, attempt: int) -> LedgerSummary:
    """Add up one task's rows of a decided ledger, and write nothing.

    `task` and `attempt` are not used; every function that runs once per Spark task gets them.
    """
    summary = LedgerSummary()
    for batch in batches:
        for row in batch.to_pylist():
            summary.add(row)
    return summary


def _row_digest(image_id: str, pixel_id: str, class_name: str | None, split: str) -> int:
    """Return a 256-bit digest of one row: its source file, its pixels, its class and its split."""
    text = "\0".join((image_id, pixel_id, class_name or "", split))
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")


def _keep_first(examples: list[Any], more: Iterable[Any]) -> None:
    """Add `more` to the examples, then keep the first `SHOWN`, ordered by their first two fields."""
    for example in more:
        if len(examples) < SHOWN or _order(example) < _order(examples[-1]):
            examples.append(example)
            examples.sort(key=_order)
            del examples[SHOWN:]


def _order(example: Sequence[Any]) -> tuple[str, str]:
    return str(example[0]), str(example[1])
