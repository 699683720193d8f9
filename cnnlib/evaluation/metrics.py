"""How good predictions are, from what Spark has counted."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import binomtest

RELIABILITY_BINS = 15


@dataclass(frozen=True)
class Confusion:
    """How often each class was taken for each: `counts` (classes, classes) int64, a row a true class.

    `failed` (classes,) int64 counts images without a prediction; they are wrong, and count for no predicted class.
    """

    classes: tuple[str, ...]
    counts: np.ndarray
    failed: np.ndarray

    @property
    def rows(self) -> int:
        """All images."""
        return int(self.counts.sum() + self.failed.sum())

    @property
    def right(self) -> int:
        """Images whose predicted class is the true one."""
        return int(self.counts.trace())

    @property
    def accuracy(self) -> float:
        """Share of all images that are right."""
        return self.right / self.rows

    @cached_property
    def support(self) -> np.ndarray:
        """Images a true class, (classes,) int64."""
        return self.counts.sum(axis=1) + self.failed

    @cached_property
    def predicted(self) -> np.ndarray:
        """Images a predicted class, (classes,) int64."""
        return self.counts.sum(axis=0)

    @cached_property
    def precision(self) -> np.ndarray:
        """Share of the images taken for a class that are of it, (classes,); 0 where none was."""
        return _shares(self.counts.diagonal(), self.predicted)

    @cached_property
    def recall(self) -> np.ndarray:
        """Share of a class's images that were taken for it, (classes,); 0 where it has none."""
        return _shares(self.counts.diagonal(), self.support)

    @cached_property
    def f1(self) -> np.ndarray:
        """Harmonic mean of precision and recall, (classes,)."""
        return _shares(2 * self.counts.diagonal(), self.predicted + self.support)

    def averages(self) -> dict[str, float]:
        """Precision, recall and F1 over the classes that occur: each class alike, and each by its images."""
        occurs = (self.support + self.predicted) > 0
        shares = _shares(self.support, np.full(len(self.classes), self.rows))
        averages = {}
        for name in ("precision", "recall", "f1"):
            values = getattr(self, name)
            averages[f"macro_{name}"] = float(values[occurs].mean())
            averages[f"weighted_{name}"] = float(values @ shares)
        return averages

    def most_confused(self, most: int) -> list[tuple[int, int, int]]:
        """The pairs of classes (true, predicted, images) that are mistaken most often."""
        wrong = self.counts.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:most]
        pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
        return [(int(true), int(taken), int(wrong[true, taken])) for true, taken in pairs if wrong[true, taken]]


@dataclass(frozen=True)
class Reliability:
    """Is a model right as often as it says? A bin a fifteenth of probability, each upper end included.

    `counts` (bins,) int64; `confidence` and `accuracy` (bins,) are their means, 0 in an empty bin.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error (Guo et al., "On Calibration of Modern Neural Networks", 2017, section 2)."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float((self.counts * gaps).sum() / max(self.counts.sum(), 1))


def reliability_of(bins: Mapping[int, tuple[int, float, float]]) -> Reliability:
    """From (images, mean confidence, share that is right) by bin, from 0.

    >>> round(reliability_of({14: (3, 0.96, 1.0), 7: (1, 0.5, 0.0)}).error, 6)
    0.155
    """
    rows = [bins.get(number, (0, 0.0, 0.0)) for number in range(RELIABILITY_BINS)]
    counts, confidence, accuracy = (np.array(values) for values in zip(*rows, strict=True))
    return Reliability(counts, confidence, accuracy)


def mcnemar_better(only_old: int, only_new: int) -> float:
    """How likely so many more would be right by chance alone: McNemar's test, exact and one-sided.

    Of the images that one model has right and the other has not, `only_old` are the old one's and `only_new` the new
    one's; without a difference each is as likely as the other (McNemar, "Note on the sampling error of the difference
    between correlated proportions or percentages", 1947).

    >>> round(mcnemar_better(2, 10), 4), mcnemar_better(0, 0)
    (0.0193, 1.0)
    """
    discordant = only_old + only_new
    return float(binomtest(only_new, discordant, 0.5, "greater").pvalue) if discordant else 1.0


def _shares(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    return np.divide(parts, wholes, out=np.zeros(len(parts)), where=wholes > 0)
