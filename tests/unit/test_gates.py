"""Gates pass at the limit, fail by one image, and say by how much."""

from dataclasses import replace

import numpy as np
import pytest

from cnnlib.evaluation.gates import accuracy_gate, better_gate, parity_gate, recall_gate, speed_gate
from cnnlib.evaluation.result import Evaluation
from tests.unit.evaluations import evaluation_of


def with_counts(counts: list[list[int]]) -> Evaluation:
    return evaluation_of(("cat", "dog"), counts)


CHAMPION = with_counts([[90, 10], [4, 96]])


@pytest.mark.parametrize(
    ("counts", "max_loss", "passed", "found"),
    [
        ([[90, 10], [4, 96]], 0.0, True, "equal"),
        ([[95, 5], [4, 96]], 0.0, True, "higher by 0.0250"),
        ([[89, 11], [4, 96]], 0.0, False, "lower by 0.0050"),
        ([[89, 11], [4, 96]], 0.005, True, "lower by 0.0050"),
        ([[88, 12], [4, 96]], 0.005, False, "lower by 0.0100"),
        # In binary, 0.93 - 0.83 is not exactly 0.1. Twenty of two hundred images are a tenth.
        ([[70, 30], [4, 96]], 0.1, True, "lower by 0.1000"),
    ],
)
def test_accuracy_may_be_lower_by_so_much(counts, max_loss, passed, found):
    gate = accuracy_gate(CHAMPION, with_counts(counts), max_loss)
    assert (gate.passed, gate.found) == (passed, found)
    assert gate.champion == "0.9300"


@pytest.mark.parametrize(
    ("counts", "max_loss", "passed", "found"),
    [
        # Better in total, but much worse on one class.
        ([[100, 0], [10, 90]], 0.05, False, "lower by 0.0600, class dog, which has 100 images"),
        ([[100, 0], [10, 90]], 0.06, True, "lower by 0.0600, class dog, which has 100 images"),
        ([[80, 20], [0, 100]], 0.05, False, "lower by 0.1000, class cat, which has 100 images"),
        ([[92, 8], [3, 97]], 0.0, True, "higher by 0.0100, class dog, which has 100 images"),
    ],
)
def test_no_class_may_lose_more_recall_than_so_much(counts, max_loss, passed, found):
    gate = recall_gate(CHAMPION, with_counts(counts), max_loss)
    assert (gate.passed, gate.found) == (passed, found)


def test_only_classes_of_the_images_decide():
    # The challenger has a class that the set lacks, and one class of the set has no image.
    champion = evaluation_of(("cat", "dog", "eel"), [[5, 0, 0], [0, 5, 0], [0, 0, 0]])
    challenger = evaluation_of(
        ("cat", "dog", "eel", "fox"), [[5, 0, 0, 0], [0, 4, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]], of_set=3
    )
    assert recall_gate(champion, challenger, 0.1).found == (
        "lower by 0.2000, class dog, which has 5 images, and one image is 0.2000: too few for this limit"
    )


def test_class_without_images_is_never_the_worst():
    champion = evaluation_of(("cat", "dog", "eel"), [[3, 2, 0], [1, 4, 0], [0, 0, 0]])
    challenger = evaluation_of(("cat", "dog", "eel"), [[5, 0, 0], [0, 5, 0], [0, 0, 0]])
    assert recall_gate(champion, challenger, 0.0).found == "higher by 0.2000, class dog, which has 5 images"


def test_better_needs_more_than_chance():
    assert better_gate(2, 8, 0.06).passed
    assert not better_gate(2, 8, 0.05).passed
    assert not better_gate(8, 2, 0.5).passed
    assert better_gate(2, 8, 0.05).found == "p = 0.05469"


def test_parity_fails_where_there_is_nothing_to_compare_with():
    assert parity_gate(1e-6, 1e-5).passed
    assert not parity_gate(2e-5, 1e-5).passed
    nothing = parity_gate(None, 1.0)
    assert (nothing.passed, nothing.found) == (False, "its run has no checkpoint to compare with")


def test_speed_is_relative_to_the_champion():
    gate = speed_gate(1000.0, 790.0, 0.79, 0.8)
    assert (gate.passed, gate.champion, gate.challenger, gate.found) == (
        False,
        "1,000 images/s",
        "790 images/s",
        "0.79 of the champion's",
    )
    assert speed_gate(1000.0, 800.0, 0.8, 0.8).passed


def test_image_without_a_prediction_counts_against_the_model():
    failed = replace(CHAMPION, confusion=replace(CHAMPION.confusion, failed=np.array([0, 0])))
    counts = [[90, 9], [4, 96]]
    worse = with_counts(counts)
    worse = replace(worse, confusion=replace(worse.confusion, failed=np.array([1, 0])))
    assert accuracy_gate(failed, worse, 0.0).found == "equal"
