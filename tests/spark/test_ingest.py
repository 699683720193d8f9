"""Ingest images into an image set with a real Spark session."""

import hashlib
import json
import shutil
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pyspark.sql import SparkSession

from cnnlib.config import (
    ImageSetOutputSettings,
    ImageSettings,
    IngestSettings,
    RejectsSettings,
    SourceSettings,
    SplitSettings,
)
from cnnlib.errors import ConfigError, LimitError, OutputExistsError, SourceError
from cnnlib.image_set.contract import Counts, ImageSet, open_image_set, publish_image_set
from cnnlib.mnist import read_mnist_file
from cnnlib.sources.idx import parse_idx
from pipelines.ingest.flow import ingest
from tests.conftest import TEST_DIGITS, TRAIN_DIGITS, write_photos


@pytest.fixture(scope="module")
def digits(spark: SparkSession, digits_idx: Path, tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return ingest(spark, idx_settings(digits_idx, tmp_path_factory.mktemp("sets") / "digits"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos [1]", per_class=10)


def idx_settings(source: Path, output: Path, **more: object) -> IngestSettings:
    return IngestSettings(
        source=SourceSettings(format="idx", path=str(source)),
        output=ImageSetOutputSettings(path=str(output), **more),
    )


def folder_settings(source: Path, output: Path, **more: object) -> IngestSettings:
    return IngestSettings(
        source=SourceSettings(format="image_folder", path=str(source)),
        image=ImageSettings(height=16, width=16),
        output=ImageSetOutputSettings(path=str(output)),
        **more,
    )


def rejects_of(folder: Path) -> dict[str, str]:
    rows = pq.read_table(folder / "rejects").to_pylist()
    return {row["path"]: row["code"] for row in rows}


@pytest.mark.main_path
def test_every_digit_is_kept_with_its_pixels_and_label(digits: ImageSet) -> None:
    assert digits.counts == Counts(
        found=TRAIN_DIGITS + TEST_DIGITS, kept=TRAIN_DIGITS + TEST_DIGITS, duplicate=0, rejected=0
    )
    assert digits.classes == tuple("0123456789")
    images = parse_idx(read_mnist_file("t10k-images-idx3-ubyte.gz"), "images")
    labels = parse_idx(read_mnist_file("t10k-labels-idx1-ubyte.gz"), "labels")
    test = pd.read_parquet(Path(digits.folder.root) / "test").set_index("path")
    assert len(test) == TEST_DIGITS
    for number in range(TEST_DIGITS):
        row = test.loc[f"t10k-images-idx3-ubyte#{number:05d}"]
        assert row.image == images[number].tobytes()
        assert row.label == labels[number]
        assert row.image_id == hashlib.sha256(images[number].tobytes()).hexdigest()


@pytest.mark.main_path
def test_training_digits_are_divided_by_hash(digits: ImageSet) -> None:
    train, val = digits.splits["train"].rows, digits.splits["val"].rows
    assert train + val == TRAIN_DIGITS
    # Binomial(600, 0.1) has mean 60 and standard deviation 7.3. Allow four of them.
    assert 31 <= val <= 89


@pytest.mark.main_path
def test_statistics_are_those_of_the_train_pixels(digits: ImageSet) -> None:
    images = pd.read_parquet(Path(digits.folder.root) / "train").image
    pixels = np.frombuffer(b"".join(images), np.uint8) / 255
    assert digits.mean == pytest.approx([pixels.mean()], abs=1e-12)
    assert digits.std == pytest.approx([pixels.std()], abs=1e-12)


def test_dataset_json_describes_the_files(digits: ImageSet) -> None:
    root = Path(digits.folder.root)
    content = json.loads((root / "dataset.json").read_text())
    named = (
        [file for split in content["splits"].values() for file in split["files"]]
        + content["ledger"]
        + content["source_files"]
    )
    assert sorted(path.relative_to(root).as_posix() for path in root.rglob("*.parquet")) == sorted(
        file["path"] for file in named
    )
    for split in content["splits"].values():
        assert split["rows"] == sum(split["class_counts"]) == sum(file["rows"] for file in split["files"])
        for file in split["files"]:
            metadata = pq.read_metadata(root / file["path"])
            assert (file["rows"], file["row_groups"]) == (metadata.num_rows, metadata.num_row_groups)
            assert file["bytes"] == (root / file["path"]).stat().st_size


def test_duckdb_reads_the_set_alone(digits: ImageSet) -> None:
    query = f"SELECT label, count(*) FROM '{digits.folder.root}/train/*.parquet' GROUP BY label ORDER BY label"
    rows = duckdb.sql(query).fetchall()
    assert [count for _, count in rows] == list(digits.splits["train"].class_counts)


def test_row_groups_have_the_given_size(spark: SparkSession, digits_idx: Path, tmp_path: Path) -> None:
    settings = idx_settings(digits_idx, tmp_path / "set", rows_per_file=400, row_group_mb=50 * 784 / 1e6)
    image_set = ingest(spark, settings)
    assert len(image_set.split("train").files) == 4
    for file in image_set.split("train").files:
        metadata = pq.read_metadata(tmp_path / "set" / file.path)
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        assert set(sizes[:-1]) <= {50}
        assert 0 < sizes[-1] <= 50


def test_rows_per_file_does_not_change_the_set(
    spark: SparkSession, digits: ImageSet, digits_idx: Path, tmp_path: Path
) -> None:
    again = ingest(spark, idx_settings(digits_idx, tmp_path / "again", rows_per_file=100))
    assert again.fingerprint == digits.fingerprint
    assert {s: split.rows for s, split in again.splits.items()} == {s: split.rows for s, split in digits.splits.items()}


def test_new_image_moves_no_earlier_image(spark: SparkSession, photos: Path, tmp_path: Path) -> None:
    settings = {"split": SplitSettings(val_fraction=0.3, test_fraction=0.3)}
    before = ingest(spark, folder_settings(photos, tmp_path / "before", **settings))
    Image.new("RGB", (20, 20), (1, 2, 3)).save(photos / "dark" / "000a.png")
    after = ingest(spark, folder_settings(photos, tmp_path / "after", **settings))
    assert after.fingerprint != before.fingerprint

    def split_of(folder: Path) -> dict[str, str]:
        return {
            path: split
            for split in ("train", "val", "test")
            for path in pq.read_table(folder / split, columns=["path"])["path"].to_pylist()
        }

    moved = split_of(tmp_path / "before").items() - split_of(tmp_path / "after").items()
    assert moved == set()


@pytest.mark.main_path
def test_class_folders_give_classes_and_pixels(spark: SparkSession, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    roundabout = tmp_path / "elsewhere" / ".." / photos.name
    image_set = ingest(spark, folder_settings(roundabout, tmp_path / "set"))
    assert image_set.classes == ("dark", "light")
    assert image_set.image.shape == (16, 16, 3)
    rows = [
        row
        for split in ("train", "val", "test")
        if (tmp_path / "set" / split).exists()
        for row in pq.read_table(tmp_path / "set" / split).to_pylist()
    ]
    assert {row["path"].split("/")[0]: row["label"] for row in rows} == {"dark": 0, "light": 1}
    levels = {
        label: np.mean([np.frombuffer(r["image"], np.uint8).mean() for r in rows if r["label"] == label])
        for label in (0, 1)
    }
    assert levels == pytest.approx({0: 60, 1: 190}, abs=3)


@pytest.mark.main_path
def test_bad_images_are_rejected_one_by_one(spark: SparkSession, photos: Path, tmp_path: Path) -> None:
    (photos / "dark" / "empty.jpg").write_bytes(b"")
    (photos / "light" / "empty_too.png").write_bytes(b"")
    (photos / "dark" / "notes.png").write_text("no image at all")
    whole = (photos / "dark" / "001.jpg").read_bytes()
    (photos / "dark" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    shutil.copy(photos / "dark" / "001.jpg", photos / "a.jpg")
    (photos / "unsorted2.png").write_bytes((photos / "dark" / "002.png").read_bytes() + b"\0")
    Image.new("RGB", (9, 9)).save(photos / "dark" / ".hidden.jpg")
    (photos / "light" / "deeper").mkdir()
    shutil.copy(photos / "light" / "003.jpg", photos / "light" / "deeper" / "x.jpg")
    image_set = ingest(spark, folder_settings(photos, tmp_path / "set", rejects=RejectsSettings(max_fraction=0.5)))
    assert rejects_of(tmp_path / "set") == {
        "dark/empty.jpg": "empty_file",
        "light/empty_too.png": "empty_file",
        "dark/notes.png": "not_an_image",
        "dark/cut.jpg": "truncated",
        "a.jpg": "unknown_label",
        "unsorted2.png": "unknown_label",
    }
    # light/deeper/x.jpg is a copy of a kept image.
    assert image_set.counts == Counts(found=27, kept=20, duplicate=1, rejected=6)
    assert image_set.left_out == {"hidden": 1}


def test_too_many_rejects_publish_nothing_and_keep_the_rejects(
    spark: SparkSession, photos: Path, tmp_path: Path
) -> None:
    for number in range(5):
        (photos / "dark" / f"bad{number}.jpg").write_text(f"not an image, {number}")
    with pytest.raises(LimitError, match=r"5 of 25 images were rejected \(5 not_an_image\)") as error:
        ingest(spark, folder_settings(photos, tmp_path / "set", rejects=RejectsSettings(max_fraction=0.1)))
    assert error.value.exit_status == 3
    assert f"{tmp_path}/set/rejects" in error.value.message
    assert len(rejects_of(tmp_path / "set")) == 5
    assert [path.name for path in (tmp_path / "set").rglob("*") if path.is_file()] == [
        path.name for path in (tmp_path / "set" / "rejects").iterdir()
    ]
    # The rejects of the failed ingest do not block the next one.
    image_set = ingest(spark, folder_settings(photos, tmp_path / "set", rejects=RejectsSettings(max_fraction=0.5)))
    assert image_set.counts.rejected == len(rejects_of(tmp_path / "set")) == 5


def test_existing_set_is_kept_without_overwrite(spark: SparkSession, digits_idx: Path, tmp_path: Path) -> None:
    first = ingest(spark, idx_settings(digits_idx, tmp_path / "set"))
    assert ingest(spark, idx_settings(digits_idx, tmp_path / "set")) == first
    assert open_image_set(str(tmp_path / "set")).files("train") == first.files("train")
    second = ingest(spark, idx_settings(digits_idx, tmp_path / "set", overwrite=True))
    assert second.fingerprint == first.fingerprint
    on_disk = {path.as_uri() for path in (tmp_path / "set" / "train").iterdir()}
    assert on_disk == set(second.files("train"))
    assert not on_disk & set(first.files("train"))


def test_failed_job_leaves_the_old_set(spark: SparkSession, photos: Path, tmp_path: Path) -> None:
    old = ingest(spark, folder_settings(photos, tmp_path / "set"))
    files = sorted((tmp_path / "set").rglob("*"))
    (photos / "dark" / "bad.jpg").write_text("no image")
    settings = folder_settings(photos, tmp_path / "set", rejects=RejectsSettings(max_fraction=0))
    settings = settings.model_copy(
        update={"output": ImageSetOutputSettings(path=str(tmp_path / "set"), overwrite=True)}
    )
    with pytest.raises(LimitError):
        ingest(spark, settings)
    assert open_image_set(str(tmp_path / "set")).fingerprint == old.fingerprint
    assert [path for path in sorted((tmp_path / "set").rglob("*")) if "rejects" not in str(path)] == files


def test_damaged_idx_is_refused_in_one_line(spark: SparkSession, digits_idx: Path, tmp_path: Path) -> None:
    source = shutil.copytree(digits_idx, tmp_path / "source")
    images = source / "t10k-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-100])
    # Leave only one file: a second task could still write its part file after the first one fails.
    for other in source.glob("train-*"):
        other.unlink()
    # The header is complete, so only the task that parses the file notices the damage.
    with pytest.raises(
        SourceError, match="t10k-images-idx3-ubyte has 156716 bytes, but its header states 156816"
    ) as error:
        ingest(spark, idx_settings(source, tmp_path / "set"))
    assert "\n" not in error.value.message
    assert list((tmp_path / "set").rglob("*.parquet")) == []


@pytest.mark.parametrize("what", ["missing", "empty", "no idx"])
def test_source_without_images_is_refused(spark: SparkSession, tmp_path: Path, what: str) -> None:
    source = tmp_path / "source"
    if what != "missing":
        source.mkdir()
    settings = (idx_settings if what == "no idx" else folder_settings)(source, tmp_path / "set")
    with pytest.raises(SourceError):
        ingest(spark, settings)
    assert not (tmp_path / "set").exists()


def test_source_without_image_size_needs_the_settings(spark: SparkSession, photos: Path, tmp_path: Path) -> None:
    settings = folder_settings(photos, tmp_path / "set").model_copy(update={"image": ImageSettings(height=16)})
    with pytest.raises(ConfigError, match=r"image\.height and image\.width"):
        ingest(spark, settings)


def test_digits_can_get_another_size_and_colour(spark: SparkSession, digits_idx: Path, tmp_path: Path) -> None:
    settings = idx_settings(digits_idx, tmp_path / "set").model_copy(
        update={"image": ImageSettings(height=14, width=20, channels=3)}
    )
    image_set = ingest(spark, settings)
    assert image_set.image.shape == (14, 20, 3)
    image = pq.read_table(tmp_path / "set" / "test")["image"][0].as_py()
    pixels = np.frombuffer(image, np.uint8).reshape(14, 20, 3)
    assert (pixels[..., 0] == pixels[..., 1]).all()
    assert (pixels[..., 0] == pixels[..., 2]).all()


def test_missing_part_file_is_never_published(spark: SparkSession, digits_idx: Path, tmp_path: Path) -> None:
    old = ingest(spark, idx_settings(digits_idx, tmp_path / "set"))
    lost = Path(old.folder.root) / old.split("train").files[0].path
    lost.rename(tmp_path / "kept")
    with pytest.raises(OutputExistsError, match="lacks train/part-.*another job writes there too"):
        publish_image_set(old)
    (tmp_path / "kept").rename(lost)
    publish_image_set(old)


def test_set_is_kept_when_the_job_fails_after_its_commit(
    spark: SparkSession, digits_idx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(spark, idx_settings(digits_idx, tmp_path / "set"))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    # After the commit, the job removes the old files.
    monkeypatch.setattr("cnnlib.storage.folder.remove_own_files", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ingest(spark, idx_settings(digits_idx, tmp_path / "set", overwrite=True))
    image_set = open_image_set(str(tmp_path / "set"))
    assert all(Path(image_set.folder.path(f.path)).exists() for s in image_set.splits.values() for f in s.files)


def test_link_to_nowhere_is_rejected(spark: SparkSession, photos: Path, tmp_path: Path) -> None:
    (photos / "dark" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (photos / "dark" / "itself.jpg").symlink_to(photos / "dark" / "itself.jpg")
    (photos / "dark" / "through.jpg").symlink_to(photos / "dark" / "000.png" / "inside.jpg")
    image_set = ingest(spark, folder_settings(photos, tmp_path / "set", rejects=RejectsSettings(max_fraction=0.2)))
    codes = rejects_of(tmp_path / "set")
    assert codes.pop("dark/gone.jpg") == "missing_file"
    assert codes.keys() == {"dark/itself.jpg", "dark/through.jpg"}
    assert image_set.counts == Counts(found=23, kept=20, duplicate=0, rejected=3)
