"""Class names that look the same."""

import pytest

from cnnlib.sources.spelling import Spelling

COMPOSED, DECOMPOSED = "K\u00fcse", "Ku\u0308se"


@pytest.mark.parametrize(
    ("names", "joined"),
    [
        (["Cat", "cat"], "Cat"),
        (["cat", "cat "], "cat"),
        (["cat", " cat"], "cat"),
        (["big cat", "big  cat"], "big cat"),
        (["big cat", "big\u00a0cat"], "big cat"),
        ([COMPOSED, DECOMPOSED], COMPOSED),
        (["STRASSE", "stra\u00dfe"], "STRASSE"),
    ],
)
def test_names_that_look_the_same_are_told_and_can_be_joined(names, joined):
    apart = Spelling.of([*names, "dog"], joined=False)
    assert sorted(apart.classes) == sorted([*names, "dog"])
    assert apart.class_of == {}
    for name in names:
        assert ascii(name) in apart.warning()
    together = Spelling.of([*names, "dog"], joined=True)
    assert sorted(together.classes) == sorted([joined, "dog"])
    assert {together.class_of.get(name, name) for name in names} == {joined}
    assert together.warning() is None


@pytest.mark.parametrize("names", [["cat", "dog"], ["7", "07"], ["K\u00fcse", "K\u00f6se"], ["cat", "cat_"], []])
def test_names_that_look_different_stay_apart(names):
    assert Spelling.of(names, joined=False).warning() is None
    assert sorted(Spelling.of(names, joined=True).classes) == sorted(names)
    assert Spelling.of(names, joined=True).class_of == {}


def test_warning_names_five_pairs():
    names = [name for letter in "abcdefg" for name in (letter, letter.upper())]
    assert "and 2 more" in Spelling.of(names, joined=False).warning()
