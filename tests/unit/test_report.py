"""The report of an image set shows the numbers of the set and the pictures that it was given."""

import base64
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cnnlib.image_set.contract import Counts, Split
from cnnlib.reports import image_set as report
from cnnlib.reports.page import thumbnail
from cnnlib.sealed.frozen.images import ImageSpec, decode_image, encode_png
from tests.unit.pictures import noise
from tests.unit.report_pages import GREY, contents_of, eventful, page_of

DIGITS = tuple("0123456789")

# --- numbers


def test_counts_stand_in_a_sentence_and_a_table():
    page = page_of(contents_of(("a",), [1234], duplicate=5, rejected=1))
    assert page.says("images", "1,240 images found = 1,234 kept + 5 duplicate + 1 rejected.")
    header, counts = page.rows["images"][:2]
    assert header == ["found", "kept", "duplicate", "rejected"]
    assert counts == ["1,240", "1,234 99.5%", "5 0.4%", "1 <0.1%"]


def test_splits_have_their_rows_files_and_row_groups():
    page = page_of(contents_of(("a", "b"), [700, 200], val=[50, 50], row_groups=3))
    assert page.rows["images"][2:] == [
        ["split", "images", "fraction", "files", "row groups", "megabytes"],
        ["train", "900", "90.0%", "1", "3", "1.5"],
        ["val", "100", "10.0%", "1", "3", "1.5"],
        ["test", "0", "0.0%", "0", "0", "0.0"],
    ]


def test_class_table_is_in_label_order():
    page = page_of(contents_of(("cat", "dog"), [1000, 20], val=[3, 4], test=[5, 0]))
    assert page.rows["classes"] == [
        ["label", "class", "images", "train", "val", "test"],
        ["0", "cat", "1,008", "1,000", "3", "5"],
        ["1", "dog", "24", "20", "4", "0"],
    ]


def test_bars_share_the_width_as_the_counts_do():
    page = page_of(contents_of(("cat", "dog"), [40, 10], val=[5, 0]))
    # train and val of the set; train and val of cat, the largest class; train of dog, and its distance to cat.
    bars = [value for value in page.values("i", "style") + page.values("b", "style") if "." not in value]
    assert bars == ["flex:50", "flex:5", "flex:40", "flex:5", "flex:10", "flex:35"]


def test_split_without_images_has_no_column():
    page = page_of(contents_of(("cat", "dog"), [3, 4]))
    assert page.rows["classes"][0] == ["label", "class", "images", "train"]


@pytest.mark.parametrize(("largest", "said"), [(100, False), (101, True)])
def test_imbalance_above_ten_is_said_in_words(largest, said):
    page = page_of(contents_of(("cat", "dog"), [10, largest - 1], val=[0, 1]))
    assert page.says("classes", f"From {largest} images of class dog down to 10 of class cat")
    assert page.says("classes", f"the largest class has {largest / 10:.1f} times as many as the smallest")
    assert page.says("classes", "The classes are imbalanced") == said
    assert page.says("", "The classes are imbalanced: class dog has 10.1 times as many images as class cat.") == said


def test_classes_without_train_images_are_named():
    page = page_of(contents_of(DIGITS, [1, 1, *[0] * 8], test=[1] * 9 + [0]))
    assert page.says("", "8 of the classes have no train image: 2, 3, 4, 5, 6 and 3 more.")
    assert page.says("classes", "1 of 10 classes have no image.")


@pytest.mark.parametrize(("row_groups", "said"), [(1, True), (2, False)])
def test_too_few_row_groups_for_two_workers_is_a_note(row_groups, said):
    page = page_of(contents_of(("a",), [9], row_groups=row_groups))
    assert page.says("", "The train split has 1 row group, so no more than one worker can train on it") == said


def test_a_sound_set_gets_no_notes():
    assert "notes" not in page_of(contents_of(("a", "b"), [9, 9])).values("ul", "class")


def test_channels_have_their_mean_and_deviation():
    grey, colour = (page_of(contents_of(("a",), [9], spec=ImageSpec(8, 8, channels))) for channels in (1, 3))
    assert grey.rows["statistics"] == [["channel", "mean", "std"], ["grey", "0.2500", "0.1250"]]
    assert [row[0] for row in colour.rows["statistics"]] == ["channel", "red", "green", "blue"]
    assert colour.rows["statistics"][3] == ["blue", "0.7500", "0.3750"]


def test_sources_of_one_size_need_no_histogram():
    page = page_of(contents_of(("a",), [9], sizes={(28, 30): 9}))
    assert page.says("sizes", "All have 28 × 30 pixels (height × width).")
    assert page.rows["sizes"] == []


def test_sizes_are_counted_by_side_ratio_and_size():
    sizes = {(375, 500): 7000, (500, 375): 30, (20, 61): 1}
    page = page_of(contents_of(("a",), [7031], sizes=sizes))
    rows = page.rows["sizes"]
    assert page.says("sizes", "1 image (<0.1%) had less height or less width than the 28 × 28 pixels of this set.")
    assert rows[:2] == [["pixels", "images"], ["16 to 23", "1"]]
    assert ["256 to 383", "7,030"] in rows
    assert [row for row in rows if ":" in row[0] and row[1] != "0"] == [["3:4", "30"], ["4:3", "7,000"], ["3:1", "1"]]
    assert rows[-4:] == [["height × width", "images"], ["375 × 500", "7,000"], ["500 × 375", "30"], ["20 × 61", "1"]]


@given(st.dictionaries(st.tuples(st.integers(1, 70_000), st.integers(1, 70_000)), st.integers(1, 10**9), min_size=2))
def test_each_size_is_in_one_bin_of_either_histogram(sizes):
    for histogram in (report._shorter_sides(sizes), report._aspect_ratios(sizes)):
        assert sum(count for _, count in histogram) == sum(sizes.values())
        assert 0 not in (histogram[0][1], histogram[-1][1])


def test_settings_are_named_as_on_the_command_line():
    settings = {"source": {"format": "idx", "path": None}, "split": {"val_fraction": 0.1}}
    assert page_of(contents_of(("a",), [9], settings=settings)).rows["settings"] == [
        ["setting", "value"],
        ["source.format", "idx"],
        ["source.path", "null"],
        ["split.val_fraction", "0.1"],
    ]


# --- pictures


def test_samples_stand_in_label_order_as_they_were_given():
    pictures = [encode_png(noise(seed=seed)) for seed in range(3)]
    samples = {"dog": pictures[2:], "cat": pictures[:2]}
    page = page_of(contents_of(("cat", "dog", "emu"), [2, 1, 0], samples=samples))
    urls = page.values("img", "src")
    assert [base64.b64decode(url.removeprefix("data:image/png;base64,")) for url in urls] == pictures
    assert page.values("img", "alt") == ["sample 1", "sample 2", "sample 1"]
    assert page.says("samples", "emu none")


def test_unlabelled_set_has_samples_and_no_classes():
    contents = contents_of((), [], samples={"": [encode_png(noise())] * 3})
    image_set = replace(contents.image_set, splits=contents.image_set.splits | {"test": Split(7, (), ())})
    page = page_of(replace(contents, image_set=replace(image_set, counts=Counts(7, 7, 0, 0))))
    assert page.says("", "7 images of 28 × 28 pixels, grey, without labels")
    assert len(page.values("img", "src")) == 3
    assert {"classes", "conflicts", "statistics"} & set(page.text) == set()


def test_thumbnail_of_a_digit_is_exact():
    pixels = np.tri(28, dtype=np.uint8)[:, :, None] * 255
    assert (decode_image(thumbnail(pixels), GREY) == pixels).all()


def test_thumbnail_of_a_photo_is_small():
    pixels = np.asarray(Image.fromarray(noise(6, 8)).resize((400, 300), Image.Resampling.BICUBIC))
    content = thumbnail(pixels)
    assert decode_image(content, ImageSpec(48, 64, 3)).shape == (48, 64, 3)
    assert (content[:2], len(content) < 3000) == (b"\xff\xd8", True)


def test_jpeg_is_called_a_jpeg():
    picture = thumbnail(noise(200, 200))
    page = page_of(contents_of(("a",), [1], samples={"a": [picture]}))
    assert page.values("img", "src") == [f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"]


# --- rejects and conflicts


def test_nothing_rejected_and_no_conflict_are_said():
    page = page_of(contents_of(("a",), [9]))
    assert page.says("rejects", "No image was rejected.")
    assert page.says("conflicts", "No image has a copy in another class.")


def test_rejects_are_counted_by_code_with_examples():
    page = page_of(eventful())
    assert page.says("", "12 images (0.4%) could not be used")
    assert page.rows["rejects"][:3] == [["code", "images"], ["not_an_image", "9"], ["truncated", "3"]]
    assert page.says("rejects", "not_an_image 2 of 9")
    # Its path has bytes that are not UTF-8.
    assert page.rows["rejects"][-1] == ["", "odd\ufffd\ufffd\ufffdends early"]


def test_conflicts_name_each_copy():
    page = page_of(eventful())
    assert page.says("conflicts", "5 images have a copy with the same pixels in another class.")
    assert page.says("conflicts", f"class 1 {'c' * 900}")
    assert page.says("conflicts", "class 2 9.png and 20 more")
