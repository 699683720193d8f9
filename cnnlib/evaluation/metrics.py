"""How good predictions are, computed from counts of images."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

RELIABILITY_BINS = 15


@dataclass(frozen=True)
class Confusion:
    """How often the images of each class were predicted as each class.

    `counts` (classes, classes) int64 has one row per true class and one column per predicted class. `failed` (classes,)
    int64 counts images without a prediction, by true class. They count as wrong, and for no predicted class.
    """

    classes: tuple[str, ...]
    counts: np.ndarray
    failed: np.ndarray

    @property
    def rows(self) -> int:
        """Number of all images."""
        return int(self.counts.sum() + self.failed.sum())

    @property
    def right(self) -> int:
        """Number of images whose predicted class is the true one."""
        return int(self.counts.trace())

    @property
    def accuracy(self) -> float:
        """Fraction of all images that are right."""
        return self.right / self.rows

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% confidence interval of the accuracy."""
        return wilson_interval(self.right, self.rows)

    @cached_property
    def support(self) -> np.ndarray:
        """Images per true class, (classes,) int64."""
        return self.counts.sum(axis=1) + self.failed

    @cached_property
    def predicted(self) -> np.ndarray:
        """Images per predicted class, (classes,) int64."""
        return self.counts.sum(axis=0)

    @property
    def precision(self) -> np.ndarray:
        """Fraction of the images predicted as a class that belong to it, (classes,); 0 if none was predicted so."""
        return self._scores[0]

    @property
    def recall(self) -> np.ndarray:
        """Fraction of a class's images that were predicted as it, (classes,); 0 if the class has no image."""
        return self._scores[1]

    @property
    def f1(self) -> np.ndarray:
        """Harmonic mean of precision and recall, (classes,)."""
        return self._scores[2]

    @cached_property
    def _scores(self) -> tuple[np.ndarray, ...]:
        # It takes a second to import, and only evaluations need it.
        from sklearn.metrics import precision_recall_fscore_support

        # (classes, classes + 1): the last column is no class, so a failed image is wrong and lowers no precision.
        counts = np.column_stack([self.counts, self.failed])
        true, predicted = counts.nonzero()
        classes = range(len(self.classes))
        scores = precision_recall_fscore_support(
            true, predicted, labels=classes, sample_weight=counts[true, predicted], zero_division=0
        )
        return scores[:3]

    def averages(self) -> dict[str, float]:
        """Average precision, recall and F1 over the classes that occur.

        A macro average gives each class the same weight, a weighted average the number of its images.
        """
        occurs = (self.support + self.predicted) > 0
        weights = self.support / self.rows
        averages = {}
        for name in ("precision", "recall", "f1"):
            values = getattr(self, name)
            averages[f"macro_{name}"] = float(values[occurs].mean())
            averages[f"weighted_{name}"] = float(values @ weights)
        return averages

    def most_confused(self, most: int) -> list[tuple[int, int, int]]:
        """Return up to `most` pairs of classes that are confused most often: (true, predicted, images)."""
        wrong = self.counts.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:most]
        pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
        return [(int(true), int(other), int(wrong[true, other])) for true, other in pairs if wrong[true, other]]


@dataclass(frozen=True)
class Reliability:
    """Whether a model is right as often as it is confident.

    Confidence is the highest probability. Each of 15 equal bins of it includes its upper end. `counts` (bins,) int64 is
    the number of images; `confidence` and `accuracy` (bins,) are the means in a bin, 0 if it is empty.
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
    """Build a `Reliability` from (images, mean confidence, fraction right) by bin, counted from 0.

    >>> round(reliability_of({14: (3, 0.96, 1.0), 7: (1, 0.5, 0.0)}).error, 6)
    0.155
    """
    rows = [bins.get(number, (0, 0.0, 0.0)) for number in range(RELIABILITY_BINS)]
    counts, confidence, accuracy = (np.array(values) for values in zip(*rows, strict=True))
    return Reliability(counts, confidence, accuracy)


def wilson_interval(right: int, rows: int) -> tuple[float, float]:
    """Return the 95% confidence interval of a fraction: between which values the true one lies, given so few images.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.

    >>> [round(end, 4) for end in wilson_interval(139, 147)]
    [0.8963, 0.9722]
    """
    from scipy.stats import binomtest

    interval = binomtest(right, rows).proportion_ci(0.95, "wilson")
    return float(interval.low), float(interval.high)


def mcnemar_better(only_old: int, only_new: int) -> float:
    """Return the probability that a new model looks so much better by chance: McNemar's test, exact and one-sided.

    `only_old` images are right with the old model alone, `only_new` with the new one alone. If the models are equally
    good, each of these images is as likely to be in either group (McNemar, "Note on the sampling error of the
    difference between correlated proportions or percentages", 1947).

    >>> round(mcnemar_better(2, 10), 4), mcnemar_better(0, 0)
    (0.0193, 1.0)
    """
    # It takes a second to import, and only a promotion needs it.
    from scipy.stats import binomtest

    discordant = only_old + only_new
    return float(binomtest(only_new, discordant, 0.5, "greater").pvalue) if discordant else 1.0
