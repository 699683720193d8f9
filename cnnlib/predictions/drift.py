"""How far predictions have drifted from the training images, by the population stability index.

The index compares two distributions over the same bins. With the fractions e (expected) and a (actual) of a bin, it is
the sum of (a - e) ln(a / e) over the bins. Below 0.1 the distributions count as equal, above 0.2 as changed (Siddiqi,
"Credit risk scorecards", 2006).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cnnlib.sealed.frozen.predict import ModelCard

WARN_ABOVE = 0.2
CONFIDENCE_BINS = 10
# Without any drift, the index of n rows is about bins / n. With fewer rows per bin than these it is mostly chance.
MIN_ROWS_PER_BIN = 10

# An empty bin counts as this fraction, because the index is not defined for zero.
_MIN_FRACTION = 1e-4


def shares_of(counts: Sequence[int] | np.ndarray) -> list[float]:
    """Divide counts by their sum; all are 0 if the sum is 0.

    >>> shares_of([1, 3]), shares_of([0, 0])
    ([0.25, 0.75], [0.0, 0.0])
    """
    values = np.asarray(counts, float)
    return (values / max(values.sum(), 1.0)).tolist()


def confidence_counts(confidences: np.ndarray) -> np.ndarray:
    """Count confidences (rows,) in ten equal bins from 0 to 1: (10,) int64. A confidence is the highest probability.

    >>> confidence_counts(np.array([0.05, 0.95, 1.0])).tolist()
    [1, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    """
    return np.histogram(confidences, CONFIDENCE_BINS, (0.0, 1.0))[0]


def index_terms(expected: Sequence[float], actual: Sequence[float]) -> np.ndarray:
    """Compute the term of each bin from the fractions in it. The sum of the terms is the index.

    >>> index_terms([0.5, 0.5], [0.5, 0.5]).tolist()
    [0.0, 0.0]
    >>> index_terms([0.5, 0.5], [0.25, 0.75]).sum().round(4).item()
    0.2747
    """
    e, a = (np.maximum(np.asarray(fractions, float), _MIN_FRACTION) for fractions in (expected, actual))
    return (a - e) * np.log(a / e)


@dataclass(frozen=True)
class Drift:
    """How `rows` predictions differ from the training images.

    The first three have one value per class, in the order of the labels:

    - `expected`: the class's fraction of the training images.
    - `predicted`: the class's fraction of the predictions.
    - `terms`: what the class adds to the index.

    `confidence` is the index of the confidences, compared with the validation images. It is None if there were none.
    """

    classes: tuple[str, ...]
    expected: tuple[float, ...]
    predicted: tuple[float, ...]
    terms: tuple[float, ...]
    confidence: float | None
    rows: int

    @property
    def index(self) -> float:
        """The population stability index of the classes."""
        return sum(self.terms)

    def as_dict(self) -> dict[str, float | None]:
        """Return the two indices under their names in `summary.json` and the MLflow run."""
        return {"classes": self.index, "confidence": self.confidence}

    @property
    def warning(self) -> str:
        """A warning if an index is too high for chance. "" if none is, or if there are too few rows to tell."""
        of_classes = self.index if self.rows >= self._enough(len(self.classes)) else 0.0
        of_confidence = self.confidence or 0.0 if self.rows >= self._enough(CONFIDENCE_BINS) else 0.0
        said = []
        if of_classes > WARN_ABOVE:
            said.append(
                f"the predicted classes differ from those of the training images (index {of_classes:.2f}): the classes "
                "may be of other proportions here, the images of another kind, or the model may be wrong often"
            )
        if of_confidence > WARN_ABOVE:
            said.append(
                f"the model's confidence differs from that on the validation images (index {of_confidence:.2f}): these "
                "images may be of another kind, or be those that it was trained on, of which a model is surer"
            )
        return "; ".join(said)

    @property
    def note(self) -> str:
        """A sentence if there are too few rows for an index to mean anything, else ""."""
        most = self._enough(max(len(self.classes), CONFIDENCE_BINS))
        if self.rows >= most:
            return ""
        return f"{self.rows:,} rows are few: below {most:,} rows, an index may be high by chance"

    @staticmethod
    def _enough(bins: int) -> int:
        return MIN_ROWS_PER_BIN * bins


def drift_of(card: ModelCard, labels: Mapping[int, int], confidences: Mapping[int, int]) -> Drift | None:
    """Compare predictions with a model's training images.

    `labels` counts the predicted labels, `confidences` the bins of `confidence_counts`. Returns None if the card does
    not say how the training images were distributed, or if nothing was predicted.
    """
    if not card.class_shares or not labels:
        return None
    predicted = shares_of([labels.get(label, 0) for label in range(len(card.classes))])
    confident = shares_of([confidences.get(number, 0) for number in range(CONFIDENCE_BINS)])
    return Drift(
        card.classes,
        card.class_shares,
        tuple(predicted),
        tuple(index_terms(card.class_shares, predicted).tolist()),
        float(index_terms(card.confidence_shares, confident).sum()) if card.confidence_shares else None,
        sum(labels.values()),
    )
