"""Splits by hash: they never change, have the right sizes, and stay the same when images are added."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnlib.image_set.splits import SPLITS, TEST, TRAIN, VAL, assign_split, unit_interval

IDS = [f"image {number}" for number in range(20_000)]


def splits_of(ids, *, val_fraction=0.1, test_fraction=0.1, salt="sparkcnn"):
    return [
        assign_split(image_id, given=None, val_fraction=val_fraction, test_fraction=test_fraction, salt=salt)
        for image_id in ids
    ]


@pytest.mark.parametrize(
    ("image_id", "salt", "expected"),
    [
        ("a", "sparkcnn", 0.297863475941327),
        ("d", "sparkcnn", 0.8683967922382155),
        ("d", "other", 0.15601016996598926),
    ],
)
def test_position_of_an_id_never_changes(image_id, salt, expected):
    assert unit_interval(image_id, salt) == pytest.approx(expected, abs=1e-15)


def test_splits_of_ids_never_change():
    # If this fails, the next ingest of every existing image set divides it differently.
    names = {TRAIN: "r", VAL: "v", TEST: "t"}
    golden = "rrrtrrrrrrvrtrrrrrvrrvrrtrtrrrrvtrrrrvrr"
    assert "".join(names[split] for split in splits_of(IDS[:40])) == golden


@given(image_id=st.text(), salt=st.text())
def test_position_lies_in_the_unit_interval(image_id, salt):
    assert 0.0 <= unit_interval(image_id, salt) < 1.0


@pytest.mark.parametrize(("val_fraction", "test_fraction"), [(0.1, 0.1), (0.083333, 0.0), (0.25, 0.5), (0.01, 0.3)])
def test_fractions_are_within_binomial_bounds(val_fraction, test_fraction):
    assigned = splits_of(IDS, val_fraction=val_fraction, test_fraction=test_fraction)
    for split, fraction in ((VAL, val_fraction), (TEST, test_fraction), (TRAIN, 1 - val_fraction - test_fraction)):
        # Five standard deviations: one set of ids in two million would fail by chance, and these ids are fixed.
        bound = 5 * math.sqrt(len(IDS) * fraction * (1 - fraction))
        assert abs(assigned.count(split) - len(IDS) * fraction) <= bound


def test_given_test_images_move_none_between_train_and_val():
    for before, after in zip(splits_of(IDS), splits_of(IDS, test_fraction=0.0), strict=True):
        assert after == (TRAIN if before == TEST else before)


def test_fraction_zero_gives_none():
    assert set(splits_of(IDS, val_fraction=0.0, test_fraction=0.0)) == {TRAIN}


@given(st.sampled_from(IDS), st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0, 0.5))
def test_larger_test_fraction_moves_nothing_out_of_test(image_id, val_fraction, test_fraction, more):
    (before,) = splits_of([image_id], val_fraction=val_fraction, test_fraction=test_fraction)
    (after,) = splits_of([image_id], val_fraction=val_fraction, test_fraction=test_fraction + more)
    assert before != TEST or after == TEST


def test_adding_images_moves_none():
    before = dict(zip(IDS[:1000], splits_of(IDS[:1000]), strict=True))
    after = dict(zip(reversed(IDS), splits_of(reversed(IDS)), strict=True))
    assert {image_id: after[image_id] for image_id in before} == before


@pytest.mark.parametrize("given_split", SPLITS)
def test_given_split_is_kept(given_split):
    fractions = {"val_fraction": 0.5, "test_fraction": 0.5}
    assert {assign_split(i, given=given_split, salt="", **fractions) for i in IDS[:100]} == {given_split}


def test_another_salt_divides_anew():
    moved = sum(a != b for a, b in zip(splits_of(IDS), splits_of(IDS, salt="another"), strict=True))
    # Two independent assignments differ for 1 - 0.8**2 - 0.1**2 - 0.1**2 = 0.34 of the images.
    assert moved / len(IDS) == pytest.approx(0.34, abs=0.02)
