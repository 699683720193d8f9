"""The image set contract: opening returns what was published, and refuses any other folder with a reason."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cnnlib.errors import ImageSetError, ModelError
from cnnlib.image_set.contract import COMMIT, Counts, open_image_set, publish_image_set
from cnnlib.image_set.ledger import GIVEN_SPLIT
from cnnlib.image_set.writer import write_images
from cnnlib.sealed.frozen.images import ImageSpec
from tests.unit.image_sets import image_set_of, in_batches, plan_for, run_examples, source_row, write_image_set

CLASSES = ("cat", "dog", "emu")


@pytest.fixture
def image_set(tmp_path):
    """12 grey images of 2 x 2 pixels: 9 train in 3 files, 3 val, no test."""
    images = np.arange(48, dtype=np.uint8).reshape(12, 2, 2, 1)
    labels = [0, 1, 2] * 4
    splits = ["train", "train", "val", "train"] * 3
    return write_image_set(tmp_path / "set", images, labels, splits, classes=CLASSES, rows_per_row_group=2)


def rewrite_commit(image_set, **changes) -> str:
    """Change keys of `dataset.json`, and return the set's path."""
    path = Path(image_set.folder.uri) / COMMIT
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return image_set.folder.uri


# --- publishing and opening


def test_opened_set_equals_the_published(image_set):
    assert open_image_set(image_set.folder.uri) == image_set


def test_counts_and_splits_are_true(image_set):
    opened = open_image_set(image_set.folder.uri)
    assert opened.counts == Counts(found=12, kept=12, duplicate=0, rejected=0)
    assert {name: split.rows for name, split in opened.splits.items()} == {"train": 9, "val": 3, "test": 0}
    assert opened.split("train").class_counts == (3, 3, 3)
    assert opened.split("val").class_counts == (1, 1, 1)
    # Each of 3 files has 3 train rows, in row groups of at most 2.
    assert opened.split("train").row_groups == 6


def test_numbers_of_each_file_are_its_footers(image_set):
    for split in ("train", "val"):
        for file in image_set.split(split).files:
            path = Path(image_set.folder.uri) / file.path
            footer = pq.read_metadata(path)
            assert (file.rows, file.row_groups) == (footer.num_rows, footer.num_row_groups)
            assert file.bytes == path.stat().st_size


def test_files_are_urls_in_published_order(image_set):
    urls = open_image_set(image_set.folder.uri).files("train")
    assert [url.removeprefix(f"file://{image_set.folder.uri}/train/")[:10] for url in urls] == [
        "part-00000",
        "part-00001",
        "part-00002",
    ]
    rows = sum((pq.read_table(url.removeprefix("file://"))["image"].to_pylist() for url in urls), [])
    assert [row[0] for row in rows] == [0, 4, 12, 16, 20, 28, 32, 36, 44]


def test_dataset_json_has_the_keys_of_the_contract(image_set):
    content = json.loads((Path(image_set.folder.uri) / COMMIT).read_text())
    assert list(content) == [
        "format_version",
        "classes",
        "image",
        "counts",
        "splits",
        "left_out",
        "rejected_by_code",
        "conflicting",
        "rejects",
        "ledger",
        "source_files",
        "statistics",
        "settings",
        "source_digest",
        "fingerprint",
    ]
    assert content["image"] == {"height": 2, "width": 2, "channels": 1, "resize": "stretch", "encoding": "raw"}
    assert content["counts"] == {"found": 12, "kept": 12, "duplicate": 0, "rejected": 0}
    assert list(content["splits"]["val"]["files"][0]) == ["path", "rows", "bytes", "row_groups"]
    assert content["classes"] == list(CLASSES)


def test_publishing_again_leaves_only_the_new_files(image_set, tmp_path):
    old = set(image_set.folder.files())
    images = np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1)
    new = write_image_set(tmp_path / "set", images, [0, 1], ["train", "test"], classes=CLASSES, files=1)
    assert open_image_set(new.folder.uri) == new
    assert set(new.folder.files()) & old == {COMMIT}
    assert len(new.folder.files()) == 4


def test_rejects_are_named_and_kept(tmp_path):
    plan = plan_for(tmp_path, ImageSpec(1, 2, 1), CLASSES)
    bad = source_row(b"cd", None)
    written = write_images(plan, in_batches([source_row(b"ab", "cat"), bad, bad]), 0, 0)
    publish_image_set(image_set_of([written], plan))
    content = json.loads((tmp_path / COMMIT).read_text())
    (rejects,) = content["rejects"]
    assert rejects["rows"] == 2
    assert (tmp_path / rejects["path"]).is_file()
    assert content["counts"] == {"found": 3, "kept": 1, "duplicate": 0, "rejected": 2}


# --- refusals


def test_folder_without_commit_is_refused(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(ImageSetError, match=f"{tmp_path} is not an image set: it has no dataset.json"):
        open_image_set(str(tmp_path))


def test_missing_path_is_refused(tmp_path):
    with pytest.raises(ImageSetError, match="is not an image set"):
        open_image_set(str(tmp_path / "absent"))


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_other_format_version_is_refused(image_set, version):
    with pytest.raises(ImageSetError, match=f"has format_version {version}, but this sparkcnn reads 1"):
        open_image_set(rewrite_commit(image_set, format_version=version))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param('{"format_version": 1, "cla', id="half"),
        pytest.param("[1, 2]", id="a-list"),
        pytest.param('{"format_version": 1}', id="keys-missing"),
    ],
)
def test_damaged_commit_is_refused(image_set, text):
    (Path(image_set.folder.uri) / COMMIT).write_text(text)
    with pytest.raises(ImageSetError):
        open_image_set(image_set.folder.uri)


@pytest.mark.parametrize(
    "counts", [Counts(found=13, kept=12, duplicate=0, rejected=0), Counts(found=12, kept=12, duplicate=1, rejected=0)]
)
def test_counts_that_do_not_add_up_publish_nothing(image_set, counts):
    before = (Path(image_set.folder.uri) / COMMIT).read_text()
    files = image_set.folder.files()
    with pytest.raises(ImageSetError, match="the counts do not add up"):
        publish_image_set(replace(image_set, counts=counts, classes=("other",)))
    assert (Path(image_set.folder.uri) / COMMIT).read_text() == before
    assert image_set.folder.files() == files


def test_splits_with_other_rows_than_kept_publish_nothing(image_set):
    with pytest.raises(ImageSetError, match="do not add up"):
        publish_image_set(replace(image_set, counts=Counts(found=13, kept=13, duplicate=0, rejected=0)))


@pytest.mark.parametrize("name", ["tset", "", "rejects", "Train"])
def test_unknown_split_is_refused(image_set, name):
    with pytest.raises(ImageSetError, match=f"split={name} is unknown; take one of train, val, test"):
        image_set.split(name)


def test_empty_split_is_refused(image_set):
    with pytest.raises(ImageSetError, match="has no test images"):
        image_set.split("test")
    with pytest.raises(ImageSetError, match="has no test images"):
        image_set.files("test")


def test_worked_example_of_open_image_set_is_true(tmp_path, monkeypatch):
    images = np.zeros((10, 28, 28, 1), np.uint8)
    splits = ["train"] * 8 + ["val"] * 2
    write_image_set(tmp_path / "sets" / "photos", images, [0, 1] * 5, splits, classes=("cat", "dog"))
    monkeypatch.chdir(tmp_path)
    assert run_examples(open_image_set) == (0, 4)


def test_set_opens_from_another_file_system(tmp_path):
    plan = plan_for("memory://a/set", ImageSpec(1, 2, 1), CLASSES)
    written = write_images(plan, in_batches([source_row(b"ab", "cat", **{GIVEN_SPLIT: "train"})]), 0, 0)
    publish_image_set(image_set_of([written], plan))
    opened = open_image_set("memory://a/set")
    assert opened.split("train").rows == 1
    assert opened.files("train")[0].startswith("memory:///a/set/train/part-00000-")


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        (("7.0", "8.0"), None),
        (("a", "x"), None),
        (("x", "y"), "have no class in common: the set has a, b, c; the model has x, y"),
        (("A ", "y"), r"\(a and A  look alike\)"),
    ],
)
def test_set_and_model_need_a_common_class(image_set, classes, says):
    own = ("7.0", "b") if classes[0] == "7.0" else ("a", "b", "c")
    asked = replace(image_set, classes=own)
    if says is None:
        asked.check_classes(classes)
        return
    with pytest.raises(ModelError, match=says):
        asked.check_classes(classes)


def test_numbers_of_other_spelling_look_alike(image_set):
    with pytest.raises(ModelError, match=r"\(7 and 7\.0, 08 and 8 look alike\)"):
        replace(image_set, classes=("7", "08")).check_classes(("7.0", "8"))
