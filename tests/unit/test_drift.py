"""Drift: the population stability index, compared with values computed by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnlib.predictions.drift import Drift, confidence_counts, drift_of, index_terms
from cnnlib.sealed.frozen.images import ImageSpec
from cnnlib.sealed.frozen.predict import ModelCard


def card(**changes) -> ModelCard:
    known = {"class_shares": (0.5, 0.3, 0.2), "confidence_shares": (0,) * 9 + (1.0,)} | changes
    return ModelCard(ImageSpec(4, 4, 1), ("a", "b", "c"), "f", "a", "package", **known)


def test_index_is_the_sum_over_the_bins() -> None:
    drift = drift_of(card(), {0: 20, 1: 30, 2: 50}, {9: 100})
    assert drift is not None
    by_hand = [(0.2 - 0.5) * math.log(0.2 / 0.5), 0, (0.5 - 0.2) * math.log(0.5 / 0.2)]
    assert drift.terms == pytest.approx(by_hand)
    assert drift.index == pytest.approx(sum(by_hand))
    assert (drift.predicted, drift.confidence) == ((0.2, 0.3, 0.5), 0)
    assert drift.warning.startswith("the predicted classes differ from those of the training images (index 0.")
    assert "confidence" not in drift.warning


def test_equal_distribution_has_no_drift() -> None:
    drift = drift_of(card(), {0: 52, 1: 29, 2: 19}, {9: 100})
    assert drift is not None
    assert 0 < drift.index < 0.01
    assert drift.warning == ""


def test_confidence_that_fell_is_warned_of_alone() -> None:
    drift = drift_of(card(), {0: 50, 1: 30, 2: 20}, {9: 50, 4: 50})
    assert drift is not None
    assert drift.index == 0
    # An empty bin counts as the fraction 1/10,000.
    assert drift.confidence == pytest.approx((0.5 - 1) * math.log(0.5) + (0.5 - 1e-4) * math.log(0.5 / 1e-4))
    assert drift.warning.startswith("the model's confidence differs from that on the validation images (index 4.")


def test_confidence_is_not_known_without_validation_images() -> None:
    drift = drift_of(card(confidence_shares=()), {0: 1}, {9: 1})
    assert isinstance(drift, Drift)
    assert drift.confidence is None


def test_few_rows_never_warn() -> None:
    few, enough = (drift_of(card(), {0: rows}, {0: rows}) for rows in (29, 30))
    assert few is not None
    assert few.index > 1
    assert few.warning == ""
    assert enough is not None
    assert enough.warning
    # The confidence has ten bins.
    assert few.note == "29 rows are few: below 100 rows, an index may be high by chance"
    many = drift_of(card(), {0: 100}, {0: 100})
    assert many is not None
    assert many.note == ""


@pytest.mark.parametrize(("shares", "labels"), [((), {0: 5}), ((0.5, 0.3, 0.2), {})])
def test_drift_is_none_without_a_known_distribution(shares, labels) -> None:
    assert drift_of(card(class_shares=shares), labels, {9: 5}) is None


@given(st.lists(st.floats(0, 1), max_size=50))
def test_every_probability_is_in_one_bin(probabilities) -> None:
    counts = confidence_counts(np.array(probabilities))
    assert counts.sum() == len(probabilities)
    assert counts[9] == sum(probability >= 0.9 for probability in probabilities)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9).flatmap(lambda e: st.tuples(st.just(e), st.permutations(e))))
def test_no_term_is_negative(both) -> None:
    assert (index_terms(*both) >= 0).all()
