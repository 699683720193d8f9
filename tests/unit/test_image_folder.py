"""Class folders: whose class a path is, what counts as an image, and what Spark will not see."""

import fnmatch

import pytest

from cnnlib.sources.image_folder import GLOB, class_of, is_hidden, is_image_name


def in_glob(name: str) -> bool:
    """Match as Hadoop does, of whose braces fnmatch knows nothing."""
    before, _, rest = GLOB.partition("{")
    inside, _, after = rest.partition("}")
    return any(fnmatch.fnmatchcase(name, before + choice + after) for choice in inside.split(","))


@pytest.mark.parametrize(
    ("path", "expected"),
    [("cat/a.jpg", "cat"), ("cat/2021/05/a.jpg", "cat"), ("a.jpg", None), ("big cat/é.png", "big cat")],
)
def test_class_is_the_first_folder(path, expected):
    assert class_of(path) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jpg", True),
        ("a.jpeg", True),
        ("a.png", True),
        ("A.JPG", True),
        ("a.JpEg", True),
        ("a.b.Png", True),
        ("a.gif", False),
        ("a.jpg.txt", False),
        ("a.jpg~", False),
        ("jpg", False),
        ("ajpg", False),
        ("a.jp", False),
        ("a.jpegs", False),
    ],
)
def test_name_and_glob_agree_on_what_is_an_image(name, expected):
    assert is_image_name(name) is expected
    assert in_glob(name) is expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("cat/a.jpg", False),
        ("cat/a_b.c.jpg", False),
        ("cat/_a.jpg", True),
        ("cat/.a.jpg", True),
        ("_cat/a.jpg", True),
        ("cat/.thumbnails/a.jpg", True),
        ("cat/x_/a.jpg", False),
    ],
)
def test_hidden_is_what_begins_with_underscore_or_dot(path, expected):
    assert is_hidden(path) is expected
