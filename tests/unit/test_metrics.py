"""Metrics from counts are those of scikit-learn for the same predictions."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import calibration_curve

from cnnlib.evaluation.metrics import RELIABILITY_BINS, Confusion, mcnemar_better, reliability_of


def confusion_of(
    labels: np.ndarray, predicted: np.ndarray, classes: int, failed: np.ndarray | None = None
) -> Confusion:
    counts = sklearn_metrics.confusion_matrix(labels, predicted, labels=range(classes))
    return Confusion(tuple(map(str, range(classes))), counts, np.zeros(classes, int) if failed is None else failed)


def drawn(seed: int, classes: int, rows: int = 500) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, rows)
    return labels, np.where(random.random(rows) < 0.7, labels, random.integers(0, classes, rows))


@pytest.mark.parametrize(("seed", "classes"), [(0, 2), (1, 5), (2, 30)])
@pytest.mark.parametrize("unused", [0, 3])
def test_figures_are_those_of_scikit_learn(seed, classes, unused):
    # Classes without images and without predictions must not count in a mean.
    labels, predicted = drawn(seed, classes)
    confusion = confusion_of(labels, predicted, classes + unused)
    of_classes = sklearn_metrics.precision_recall_fscore_support(
        labels, predicted, labels=range(classes + unused), zero_division=0
    )
    for ours, theirs in zip(
        (confusion.precision, confusion.recall, confusion.f1, confusion.support), of_classes, strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
    assert confusion.accuracy == pytest.approx(sklearn_metrics.accuracy_score(labels, predicted), abs=1e-12)
    for kind in ("macro", "weighted"):
        expected = sklearn_metrics.precision_recall_fscore_support(labels, predicted, average=kind, zero_division=0)[:3]
        ours = [confusion.averages()[f"{kind}_{name}"] for name in ("precision", "recall", "f1")]
        assert ours == pytest.approx(expected, abs=1e-12)


def test_class_never_predicted_counts_as_zero_in_the_mean():
    labels, predicted = np.array([0, 0, 1, 2]), np.array([0, 0, 0, 0])
    confusion = confusion_of(labels, predicted, 3)
    assert confusion.precision.tolist() == [0.5, 0, 0]
    expected = sklearn_metrics.f1_score(labels, predicted, average="macro", zero_division=0)
    assert confusion.averages()["macro_f1"] == pytest.approx(expected)


def test_image_without_a_prediction_is_wrong_and_of_no_class():
    confusion = Confusion(("a", "b"), np.array([[8, 0], [1, 9]]), np.array([2, 0]))
    assert (confusion.rows, confusion.right) == (20, 17)
    assert confusion.accuracy == 17 / 20
    assert confusion.recall.tolist() == [0.8, 0.9]
    assert confusion.precision.tolist() == [8 / 9, 1.0]
    assert confusion.f1 == pytest.approx([16 / 19, 18 / 19])
    assert confusion.averages()["weighted_recall"] == pytest.approx(0.85)
    assert confusion.predicted.tolist() == [9, 9]


def test_classes_mistaken_most_often_come_first():
    counts = np.array([[5, 2, 0], [3, 5, 0], [0, 2, 5]])
    confusion = Confusion(("a", "b", "c"), counts, np.zeros(3, int))
    assert confusion.most_confused(2) == [(1, 0, 3), (0, 1, 2)]
    assert confusion.most_confused(9) == [(1, 0, 3), (0, 1, 2), (2, 1, 2)]


def test_reliability_and_its_error_are_those_of_the_definition():
    random = np.random.default_rng(3)
    confidence = random.random(1000) ** 0.3
    right = random.random(1000) < confidence**2
    numbers = np.ceil(confidence * RELIABILITY_BINS).astype(int) - 1
    means = {
        int(number): (
            int((numbers == number).sum()),
            confidence[numbers == number].mean(),
            right[numbers == number].mean(),
        )
        for number in np.unique(numbers)
    }
    reliability = reliability_of(means)
    share_right, mean_confidence = calibration_curve(right, confidence, n_bins=RELIABILITY_BINS)
    filled = reliability.counts > 0
    np.testing.assert_allclose(reliability.accuracy[filled], share_right)
    np.testing.assert_allclose(reliability.confidence[filled], mean_confidence)
    gaps = [abs(right[numbers == n].mean() - confidence[numbers == n].mean()) * (numbers == n).mean() for n in means]
    assert reliability.error == pytest.approx(sum(gaps))
    assert reliability.error > 0.1


def test_nothing_predicted_has_no_calibration_error():
    assert reliability_of({}).error == 0


@pytest.mark.parametrize(
    ("only_old", "only_new", "expected"),
    # Sums of binomial probabilities: at least 8 of 10, that is 2^-10 (45 + 10 + 1); all of 5; at least 2 of 4.
    [(2, 8, 56 / 1024), (0, 5, 1 / 32), (2, 2, 11 / 16), (8, 2, 1013 / 1024)],
)
def test_mcnemar_is_exact(only_old, only_new, expected):
    assert mcnemar_better(only_old, only_new) == pytest.approx(expected)
