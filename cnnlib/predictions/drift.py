"""How far what a model predicts has moved from what it was trained on: the population stability index.

The index of two distributions over the same bins, with shares e (expected) and a (actual), is the sum over the bins of
(a - e) ln(a / e). Below 0.1 they are taken for the same, above 0.2 something has changed (Siddiqi, "Credit risk
scorecards", 2006).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cnnlib.sealed.frozen.predict import ModelCard

WARN_ABOVE = 0.2
CONFIDENCE_BINS = 10
# Of n rows without any change the index is about bins / n: with fewer rows a bin it is mostly chance.
ROWS_A_BIN = 10

# An empty bin's share: the index has no value for zero.
_LEAST_SHARE = 1e-4


def shares_of(counts: Sequence[int] | np.ndarray) -> list[float]:
    """Counts as shares of their sum, each zero where there is none.

    >>> shares_of([1, 3]), shares_of([0, 0])
    ([0.25, 0.75], [0.0, 0.0])
    """
    values = np.asarray(counts, float)
    return (values / max(values.sum(), 1.0)).tolist()


def confidence_counts(probabilities: np.ndarray) -> np.ndarray:
    """How many of the highest probabilities (rows,) fall into each of ten equal bins of 0 to 1: (10,) int64.

    >>> confidence_counts(np.array([0.05, 0.95, 1.0])).tolist()
    [1, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    """
    return np.histogram(probabilities, CONFIDENCE_BINS, (0.0, 1.0))[0]


def stability_terms(expected: Sequence[float], actual: Sequence[float]) -> np.ndarray:
    """What each bin adds to the index; their sum is the index.

    >>> stability_terms([0.5, 0.5], [0.5, 0.5]).tolist()
    [0.0, 0.0]
    >>> stability_terms([0.5, 0.5], [0.25, 0.75]).sum().round(4).item()
    0.2747
    """
    e, a = (np.maximum(np.asarray(shares, float), _LEAST_SHARE) for shares in (expected, actual))
    return (a - e) * np.log(a / e)


@dataclass(frozen=True)
class Stability:
    """What `rows` predictions were, against the training set.

    Of each class its share of the training set, of the predictions, and what it adds to the index; `confidence` is the
    index of the highest probabilities against those of the validation images, None where there were none.
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
        """The two indices, as `summary.json` and the MLflow run have them."""
        return {"classes": self.index, "confidence": self.confidence}

    @property
    def warning(self) -> str:
        """What to say of an index that is above what is taken for chance; "" where none is, or rows are too few."""
        of_classes = self.index if self.rows >= ROWS_A_BIN * len(self.classes) else 0.0
        of_confidence = self.confidence or 0.0 if self.rows >= ROWS_A_BIN * CONFIDENCE_BINS else 0.0
        if max(of_classes, of_confidence) <= WARN_ABOVE:
            return ""
        return f"an index above {WARN_ABOVE} says that these images are not like those that the model was trained on"


def stability_of(card: ModelCard, labels: Mapping[int, int], confidences: Mapping[int, int]) -> Stability | None:
    """Compare counts of predicted labels, and of the bins of their probabilities, with what a model's card has.

    None for a card without it, or where nothing was predicted.
    """
    if not card.class_shares or not labels:
        return None
    predicted = shares_of([labels.get(label, 0) for label in range(len(card.classes))])
    confident = shares_of([confidences.get(number, 0) for number in range(CONFIDENCE_BINS)])
    return Stability(
        card.classes,
        card.class_shares,
        tuple(predicted),
        tuple(stability_terms(card.class_shares, predicted).tolist()),
        float(stability_terms(card.confidence_shares, confident).sum()) if card.confidence_shares else None,
        sum(labels.values()),
    )
