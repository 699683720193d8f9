"""Every source format, read by Spark: each image appears once, with its label and split, or as a reject."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pyspark.sql import SparkSession

from cnnlib.errors import SourceError
from cnnlib.image_set.contract import Counts
from pipelines.ingest.flow import ingest
from tests.conftest import write_photos
from tests.spark.ingests import label_of, rejects_of, rows_of, settings_of, split_of
from tests.unit.pictures import encoded, noise
from tests.unit.tars import gzipped, pack


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """10 dark and 10 light photographs, dark/000.png and so on."""
    return write_photos(tmp_path / "photos #1", per_class=10)


def png(seed: int, side: int = 20) -> bytes:
    return encoded(Image.fromarray(noise(side, side, 3, seed)), "PNG")


# --- class folders


def test_split_folders_give_the_splits(spark: SparkSession, photos: Path, tmp_path: Path) -> None:
    for split, names in {"train": ["000", "001"], "val": ["002"], "test": ["003"]}.items():
        for class_name in ("dark", "light"):
            for name in names:
                (source,) = (photos / class_name).glob(f"{name}.*")
                target = tmp_path / "divided" / split / class_name / source.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
    image_set = ingest(spark, settings_of("image_folder", tmp_path / "divided", tmp_path / "set"))
    assert image_set.classes == ("dark", "light")
    assert split_of(tmp_path / "set") == {
        path: path.split("/")[0] for path in (row["path"] for row in rows_of(tmp_path / "set"))
    }
    assert {name: split.rows for name, split in image_set.splits.items()} == {"train": 4, "val": 2, "test": 2}


@pytest.mark.main_path
def test_every_format_is_found_and_read(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "in" / "a").mkdir(parents=True)
    for number, kind in enumerate(["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP"]):
        picture = Image.fromarray(noise(20, 20, 3, number))
        picture.save(tmp_path / "in" / "a" / f"x.{kind.lower()}", kind)
    # The content decides about the format, not the name.
    (tmp_path / "in" / "a" / "png_in_truth.JPG").write_bytes(png(9))
    (tmp_path / "in" / "a" / "notes.txt").write_text("no image by its name")
    image_set = ingest(spark, settings_of("image_folder", tmp_path / "in", tmp_path / "set"))
    assert image_set.counts == Counts(found=7, kept=7, duplicate=0, rejected=0)


def test_many_small_files_in_many_folders_make_few_tasks(spark: SparkSession, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1200, 4, 4, 3), dtype=np.uint8)
    for number, picture in enumerate(pixels):
        folder = tmp_path / "in" / f"class {number % 40:02d}" / "deeper"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{number}.png")
    (tmp_path / "in" / "class 41").symlink_to(tmp_path / "in" / "class 00" / "deeper")
    image_set = ingest(spark, settings_of("image_folder", tmp_path / "in", tmp_path / "set"))
    assert len(image_set.classes) == 41
    # The linked folder contributes its images a second time, in another class.
    assert image_set.counts == Counts(found=1230, kept=1170, duplicate=60, rejected=0)
    assert image_set.conflicting == 60
    assert len(image_set.splits["train"].files) <= 6


def test_numeric_classes_are_in_numeric_order(spark: SparkSession, tmp_path: Path) -> None:
    for number in (10, 9, 0):
        (tmp_path / "in" / str(number)).mkdir(parents=True)
        (tmp_path / "in" / str(number) / "a.png").write_bytes(png(number))
    assert ingest(spark, settings_of("image_folder", tmp_path / "in", tmp_path / "set")).classes == ("0", "9", "10")


def test_unlabelled_images_have_no_class(spark: SparkSession, photos: Path, tmp_path: Path) -> None:
    shutil.copy(photos / "dark" / "000.png", photos / "top.png")
    (photos / "dark" / "000.png").unlink()
    settings = settings_of("image_folder", photos, tmp_path / "set", source={"labels": "none"})
    image_set = ingest(spark, settings)
    assert (image_set.classes, image_set.counts.kept) == ((), 20)
    assert set(label_of(tmp_path / "set").values()) == {-1}


def be_gone(file: Path) -> None:
    file.unlink()


def become_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def grow(file: Path) -> None:
    file.write_bytes(file.read_bytes() + bytes(100_000))


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        (be_gone, "missing_file", "it has gone since the source was listed"),
        (become_a_folder, "unreadable", "it cannot be read: "),
        (grow, "too_many_bytes", "it has grown beyond the limit of 100000 bytes"),
    ],
)
def test_file_that_changes_during_ingest_is_rejected(
    spark: SparkSession, photos: Path, tmp_path: Path, change: Callable[[Path], None], code: str, says: str
) -> None:
    from cnnlib.config import RejectsSettings
    from pipelines.ingest import flow

    settings = settings_of("image_folder", photos, tmp_path / "set").model_copy(
        update={"rejects": RejectsSettings(max_fraction=0.1, max_mb=0.1)}
    )
    whole = flow.writing_run

    def change_a_file(*arguments: object) -> object:
        # This runs between the listing and the reading.
        change(photos / "dark" / "004.png")
        return whole(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flow, "writing_run", change_a_file)
        image_set = ingest(spark, settings)
    assert image_set.counts == Counts(found=20, kept=19, duplicate=0, rejected=1)
    assert rejects_of(tmp_path / "set") == {"dark/004.png": code}
    (message,) = pq.read_table(tmp_path / "set" / "rejects")["message"].to_pylist()
    assert message.startswith(says)


def test_file_of_too_many_bytes_is_never_read(spark: SparkSession, photos: Path, tmp_path: Path) -> None:
    # The file is larger than a row of Spark may be. It is sparse, so it needs no disk space.
    with (photos / "dark" / "huge.jpg").open("wb") as file:
        file.truncate(3 * 2**30)
    (photos / "dark" / "large.png").write_bytes(png(1, side=300))
    entries = [{"path": f"dark/{name}", "label": "dark"} for name in ("000.png", "huge.jpg", "large.png")]
    limits = {"max_fraction": 0.9, "max_mb": 0.1}
    folder = settings_of("image_folder", photos, tmp_path / "set", rejects=limits)
    assert ingest(spark, folder).counts == Counts(found=22, kept=20, duplicate=0, rejected=2)
    pd.DataFrame(entries).to_csv(photos / "images.csv", index=False)
    manifest = settings_of("manifest", photos / "images.csv", tmp_path / "other", rejects=limits)
    assert ingest(spark, manifest).counts.kept == 1
    for output in ("set", "other"):
        assert rejects_of(tmp_path / output) == {"dark/huge.jpg": "too_many_bytes", "dark/large.png": "too_many_bytes"}


# --- arrays


def write_cifar(folder: Path) -> np.ndarray:
    """Write two batches of 20 images and a test batch of 10 in the format of CIFAR-10: (50, 32, 32, 3) uint8."""
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
    records = [bytes([i % 10]) + image.transpose(2, 0, 1).tobytes() for i, image in enumerate(pixels)]
    for name, chosen in (
        ("data_batch_1", records[:20]),
        ("data_batch_2", records[20:40]),
        ("test_batch", records[40:]),
    ):
        (folder / f"{name}.bin").write_bytes(b"".join(chosen))
    (folder / "batches.meta.txt").write_text("\n".join("abcdefghij") + "\n")
    return pixels


def test_cifar_keeps_pixels_labels_and_its_test_images(spark: SparkSession, tmp_path: Path) -> None:
    pixels = write_cifar(tmp_path / "cifar")
    settings = settings_of("cifar", tmp_path / "cifar", tmp_path / "set", image={"height": None, "width": None})
    image_set = ingest(spark, settings)
    assert image_set.image.shape == (32, 32, 3)
    assert image_set.classes == tuple("abcdefghij")
    assert image_set.splits["test"].rows == 10
    first = {"data_batch_1": 0, "data_batch_2": 20, "test_batch": 40}
    rows = rows_of(tmp_path / "set")
    assert len(rows) == 50
    for row in rows:
        stem, number = row["path"].split(".bin#")
        place = first[stem] + int(number)
        assert row["image"] == pixels[place].tobytes()
        assert row["label"] == place % 10
        assert (row["split"] == "test") == (place >= 40)


# --- tar shards


def test_shards_give_every_image_and_every_problem(spark: SparkSession, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    whole = pack(
        *(member for n in range(8) for member in ((f"{n:03d}.png", png(n)), (f"{n:03d}.cls", str(n % 2).encode())))
    )
    (shards / "a.tar").write_bytes(whole)
    (shards / "b.tgz").write_bytes(gzipped(pack(("x/1.jpg", png(20)), ("x/1.json", b'{"label": 1}'))))
    (shards / "c.tar").write_bytes(
        pack(("1.png", png(21)), ("2.cls", b"1"), ("../3.png", png(22)), ("../3.cls", b"0"), ("4.png", b""))
    )
    settings = settings_of("webdataset", shards, tmp_path / "set", rejects={"max_fraction": 0.5})
    image_set = ingest(spark, settings)
    assert image_set.counts == Counts(found=13, kept=9, duplicate=0, rejected=4)
    assert image_set.classes == ("0", "1")
    assert label_of(tmp_path / "set") == {f"a.tar#{n:03d}.png": n % 2 for n in range(8)} | {"b.tgz#x/1.jpg": 1}
    assert rejects_of(tmp_path / "set") == {
        "c.tar#1.png": "unknown_label",
        "c.tar#2.cls": "missing_file",
        "c.tar#../3.png": "unreadable",
        "c.tar#4.png": "empty_file",
    }


@pytest.mark.parametrize("source_format", ["idx", "cifar", "webdataset", "image_folder", "manifest", "table"])
def test_empty_source_is_refused_in_one_line(spark: SparkSession, tmp_path: Path, source_format: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with pytest.raises(SourceError) as error:
        ingest(spark, settings_of(source_format, source, tmp_path / "set"))
    assert "\n" not in error.value.message
    assert not (tmp_path / "set").exists()


def test_file_names_that_look_like_hadoop_patterns_are_read(spark: SparkSession, tmp_path: Path) -> None:
    names = ["a b.png", "a%20b.png", "ünï.png", "x{1,2}.png", "[z].png", "q?.png", "s*.png", "#.png", "back\\slash.png"]
    (tmp_path / "in" / "a:b").mkdir(parents=True)
    for number, name in enumerate(names):
        (tmp_path / "in" / "a:b" / name).write_bytes(png(number))
    Path(os.fsdecode(bytes(tmp_path / "in" / "a:b") + b"/no \xff text.png")).write_bytes(png(99))
    settings = settings_of("image_folder", tmp_path / "in", tmp_path / "set", rejects={"max_fraction": 0.5})
    image_set = ingest(spark, settings)
    assert image_set.counts == Counts(found=10, kept=9, duplicate=0, rejected=1), rejects_of(tmp_path / "set")
    assert rejects_of(tmp_path / "set") == {"a:b/no \\xff text.png": "missing_file"}
    assert set(label_of(tmp_path / "set")) == {f"a:b/{name}" for name in names}
    assert pq.read_table(next((tmp_path / "set" / "train").iterdir())).schema.field("image").type == pa.binary()
