"""Class folders: the class of a path, and which files are images or hidden."""

import pytest

from cnnlib.sources.image_folder import are_splits, class_and_split_of, first_folder, is_hidden, is_image_name


@pytest.mark.parametrize(
    ("path", "expected"),
    [("cat/a.jpg", "cat"), ("cat/2021/05/a.jpg", "cat"), ("a.jpg", None), ("big cat/é.png", "big cat")],
)
def test_class_is_the_first_folder(path, expected):
    assert first_folder(path) == expected


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["train", "val", "test"], True),
        (["test", "train"], True),
        (["val"], True),
        (["train", "train"], True),
        ([], False),
        (["cat", "dog"], False),
        (["train", "bus"], False),
        (["train", "valid"], False),
        (["Train", "Test"], False),
    ],
)
def test_first_folders_are_splits_if_all_are(folders, expected):
    assert are_splits(folders) is expected


@pytest.mark.parametrize(
    ("path", "has_splits", "expected"),
    [
        ("train/cat/a.jpg", True, ("cat", "train")),
        ("val/big cat/2021/a.jpg", True, ("big cat", "val")),
        ("test/test/a.jpg", True, ("test", "test")),
        ("train/a.jpg", True, (None, "train")),
        ("a.jpg", True, (None, None)),
        ("train/cat/a.jpg", False, ("train", None)),
        ("cat/a.jpg", False, ("cat", None)),
        ("a.jpg", False, (None, None)),
    ],
)
def test_class_and_split_are_folders(path, has_splits, expected):
    assert class_and_split_of(path, has_splits) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jpg", True),
        ("a.jpeg", True),
        ("a.png", True),
        ("A.JPG", True),
        ("a.JpEg", True),
        ("a.b.Png", True),
        ("a.jfif", True),
        ("a.bmp", True),
        ("a.GIF", True),
        ("a.tif", True),
        ("a.Tiff", True),
        ("a.webp", True),
        ("a.svg", False),
        ("a.webm", False),
        ("a.ti", False),
        ("a.jpg.txt", False),
        ("a.jpg~", False),
        ("jpg", False),
        ("ajpg", False),
        ("a.jp", False),
        ("a.jpegs", False),
    ],
)
def test_image_is_known_by_its_ending(name, expected):
    assert is_image_name(name) is expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("cat/a.jpg", False),
        ("cat/a_b.c.jpg", False),
        ("cat/_a.jpg", False),
        ("cat/.a.jpg", True),
        ("_cat/a.jpg", False),
        ("cat/.thumbnails/a.jpg", True),
        ("cat/x_/a.jpg", False),
    ],
)
def test_hidden_file_begins_with_a_dot(path, expected):
    assert is_hidden(path) is expected
