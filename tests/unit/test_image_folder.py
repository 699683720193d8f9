"""Class folders: whether folders are splits or classes, and the class and split of a path."""

import pytest

from cnnlib.errors import SourceError
from cnnlib.sources.image_folder import (
    FolderLayout,
    find_layout,
    first_folder,
    is_image_name,
    splits_by_name,
)


@pytest.mark.parametrize(
    ("path", "expected"),
    [("cat/a.jpg", "cat"), ("cat/2021/05/a.jpg", "cat"), ("a.jpg", None), ("big cat/é.png", "big cat")],
)
def test_class_is_the_first_folder(path, expected):
    assert first_folder(path) == expected


def tree(*folders: str) -> list[str]:
    """Return the path of one image in each folder."""
    return [f"{folder}/a.jpg" for folder in folders]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (tree("train/cat", "val/cat", "test/dog"), {"train": "train", "val": "val", "test": "test"}),
        (tree("test/cat", "train/cat"), {"train": "train", "test": "test"}),
        (tree("val/cat"), {"val": "val"}),
        (tree("train/cat", "valid/cat", "test/cat"), {"train": "train", "valid": "val", "test": "test"}),
        (tree("train/cat", "validation/cat"), {"train": "train", "validation": "val"}),
        (tree("Train/cat", "Test/cat"), {"Train": "train", "Test": "test"}),
        (tree("TRAINING/cat", "Testing/cat", "dev/dog"), {"TRAINING": "train", "Testing": "test", "dev": "val"}),
        (tree("training/cat", "eval/cat"), {"training": "train", "eval": "val"}),
        # One image lies where its class is missing. It becomes a reject, and the others show what is meant.
        ([*tree("train/cat", "test/cat"), "train/b.jpg"], {"train": "train", "test": "test"}),
        (["a.jpg", *tree("train/cat", "val/cat")], {"train": "train", "val": "val"}),
        ([], {}),
        (tree("cat", "dog"), {}),
        (tree("cat/2021", "dog/2022"), {}),
        # Vehicles.
        (tree("train", "bus"), {}),
        (tree("bullet train", "bus", "test tube"), {}),
        (tree("freight train", "passenger train"), {}),
        (tree("latest", "detest", "trainer"), {}),
    ],
)
def test_certain_layout_is_found(paths, expected):
    assert find_layout(paths, "auto", "photos").splits == expected


@pytest.mark.parametrize(
    ("paths", "as_splits"),
    [
        (tree("train/cat", "test/cat", "unlabeled"), {"train": "train", "test": "test"}),
        (tree("train/cat", "bus/2021", "tram/2022"), {"train": "train"}),
        (tree("train", "test", "bus"), {"train": "train", "test": "test"}),
        (tree("train/cat", "val/cat", "valid/cat"), {"train": "train", "val": "val", "valid": "val"}),
        (tree("train2017/cat", "val2017/cat"), {"train2017": "train", "val2017": "val"}),
        (tree("training_set/cat", "test_set/cat"), {"training_set": "train", "test_set": "test"}),
        (tree("TrainSet/cat", "TestSet/cat"), {"TrainSet": "train", "TestSet": "test"}),
        (tree("1-train/cat", "2-test/cat", "other/cat"), {"1-train": "train", "2-test": "test"}),
        # The labels are elsewhere: these folders are neither.
        (tree("train_images", "test_images"), {"train_images": "train", "test_images": "test"}),
        (tree("train", "test"), {"train": "train", "test": "test"}),
        (tree("test"), {"test": "test"}),
    ],
)
def test_uncertain_layout_is_refused_and_can_be_said(paths, as_splits):
    with pytest.raises(SourceError) as refused:
        find_layout(paths, "auto", "photos")
    assert "--source.layout splits" in refused.value.message
    assert "--source.layout classes" in refused.value.message
    assert "\n" not in refused.value.message
    assert find_layout(paths, "splits", "photos").splits == as_splits
    assert find_layout(paths, "classes", "photos").splits == {}


def test_refusal_names_the_folders_that_would_be_left_out():
    with pytest.raises(SourceError, match=r"\(test is test, train is train; unlabeled would be left out\)"):
        find_layout(tree("train/cat", "test/cat", "unlabeled"), "auto", "photos")


def test_layout_without_any_split_cannot_be_splits():
    with pytest.raises(SourceError, match="none of cat, dog in photos is called like a split"):
        find_layout(tree("cat", "dog"), "splits", "photos")


def test_uncertain_layout_of_unlabelled_images_gives_no_split():
    assert find_layout(tree("train/cat", "bus/2021"), "auto", "photos", labelled=False) == FolderLayout()


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        (tree("PetImages/Cat", "PetImages/Dog"), "--source.path photos/PetImages,"),
        (tree("a/b/Cat", "a/b/Dog"), "--source.path photos/a/b,"),
        (tree("data/train/cat", "data/test/cat"), "--source.path photos/data,"),
        (
            tree("train/data/cat", "train/data/dog", "test/data/cat", "test/data/dog"),
            "from test/data up into test|from",
        ),
    ],
)
def test_wrapper_folder_is_refused_and_named(paths, says):
    with pytest.raises(SourceError, match=says):
        find_layout(paths, "auto", "photos")


@pytest.mark.parametrize(
    "paths", [tree("cat"), tree("cat/2021"), ["cat/a.jpg", *tree("cat/2021", "cat/2022")], tree("a/x", "a/y", "b")]
)
def test_single_class_is_no_wrapper(paths):
    assert find_layout(paths, "auto", "photos").splits == {}


def test_wrapper_can_be_said_to_be_a_class():
    assert find_layout(tree("PetImages/Cat", "PetImages/Dog"), "classes", "photos") == FolderLayout()
    assert find_layout(tree("PetImages/Cat", "PetImages/Dog"), "auto", "photos", labelled=False) == FolderLayout()


@pytest.mark.parametrize(
    ("path", "splits", "expected"),
    [
        ("train/cat/a.jpg", True, ("cat", "train")),
        ("valid/big cat/2021/a.jpg", True, ("big cat", "val")),
        ("Test/test/a.jpg", True, ("test", "test")),
        ("train/a.jpg", True, (None, "train")),
        ("other/cat/a.jpg", True, ("cat", None)),
        ("a.jpg", True, (None, None)),
        ("train/cat/a.jpg", False, ("train", None)),
        ("cat/a.jpg", False, ("cat", None)),
        ("a.jpg", False, (None, None)),
    ],
)
def test_class_and_split_are_folders(path, splits, expected):
    layout = FolderLayout({"train": "train", "valid": "val", "Test": "test"} if splits else {})
    assert layout.class_and_split_of(path) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train", "val"], {"train": "train", "val": "val"}),
        (["train"], {"train": "train"}),
        (["photos-train-0.tar", "photos-test-0.tar"], {"photos-train-0.tar": "train", "photos-test-0.tar": "test"}),
        (["photos-train-0.tar", "photos-train-1.tar"], {}),
        (["0.tar", "1.tar"], {}),
        (["train-0.tar", "bus-0.tar"], {}),
    ],
)
def test_shards_tell_their_split_by_name(names, expected):
    assert splits_by_name(names, "auto", "shards") == expected
    assert splits_by_name(names, "classes", "shards") == {}


def test_shards_beside_those_of_splits_are_refused():
    names = ["train-0.tar", "test-0.tar", "extra-0.tar"]
    with pytest.raises(SourceError, match=r"extra-0\.tar would be left out"):
        splits_by_name(names, "auto", "shards")
    assert splits_by_name(names, "splits", "shards") == {"train-0.tar": "train", "test-0.tar": "test"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jpg", True),
        ("a.jpeg", True),
        ("a.jpe", True),
        ("a.png", True),
        ("A.JPG", True),
        ("a.JPG ", True),
        ("a.JpEg", True),
        ("a.b.Png", True),
        ("a.jfif", True),
        ("a.bmp", True),
        ("a.GIF", True),
        ("a.tif", True),
        ("a.Tiff", True),
        ("a.webp", True),
        ("a.ppm", True),
        ("a.PGM", True),
        ("a.jp2", True),
        ("a.avif", True),
        ("a.HEIC", True),
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
