"""Labels as other tools write them."""

import pytest

from cnnlib.errors import SourceError
from cnnlib.sources.labels import check_no_lists, label_order, label_text, without_decimals


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["10", "9", "0"], ("0", "9", "10")),
        (["10.0", "1.0", "0.0"], ("0.0", "1.0", "10.0")),
        (["0.5", "-1", "10", "0.25"], ("-1", "0.25", "0.5", "10")),
        (["007", "7", "10"], ("007", "7", "10")),
        (["10", "9", "b"], ("10", "9", "b")),
        (["1e3", "2"], ("1e3", "2")),
        ([], ()),
    ],
)
def test_classes_are_in_order(names, expected):
    assert label_order(names) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("007", "007"),
        ("7.0", "7.0"),
        (7, "7"),
        (7.0, "7"),
        (-0.0, "0"),
        (0.5, "0.5"),
        (1e20, "100000000000000000000"),
        (True, "true"),
        (False, "false"),
        (None, None),
        (float("nan"), None),
        ("nan", None),
        ("NaN", None),
        ("<NA>", None),
        ("", None),
        ("  ", None),
        ("None", "None"),
        ("NA", "NA"),
        (" big  cat ", "big  cat"),
    ],
)
def test_label_keeps_its_spelling(value, expected):
    assert label_text(value, "m.json") == expected


@pytest.mark.parametrize("value", [[0, 1], ["cat"], {"name": "cat"}, []])
def test_several_labels_are_refused(value):
    with pytest.raises(SourceError, match="m.json: label of entry 3 is .*; several labels for one image"):
        label_text(value, "m.json: label of entry 3")


@pytest.mark.parametrize("name", ["[0, 1]", "['cat', 'dog']", "{'a': 1}"])
def test_lists_that_were_written_as_text_are_refused(name):
    with pytest.raises(SourceError, match="several labels for one image"):
        check_no_lists(["cat", name], "m.csv")
    check_no_lists(["[cat", "cat]", "(cat)"], "m.csv")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["7.0", "10.0"], {"7.0": "7", "10.0": "10"}),
        (["7.0", "7", "-1.00"], {"7.0": "7", "-1.00": "-1"}),
        (["7", "10"], {}),
        (["1.0", "1.5"], {}),
        (["1.0", "2.0-beta"], {}),
        ([], {}),
    ],
)
def test_decimal_point_of_whole_numbers_is_dropped_if_all_are_whole(names, expected):
    assert without_decimals(names) == expected
