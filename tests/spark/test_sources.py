"""Every source, read by real Spark: each image found once, with label, split and group, or what is wrong with it."""

import json
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

from cnnlib.errors import ConfigError, SourceError
from cnnlib.imageset import Counts
from pipelines.ingest import ingest
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


def test_given_splits_of_folders_stand(spark: SparkSession, photos: Path, tmp_path: Path) -> None:
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


def test_every_format_is_found_and_read(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "in" / "a").mkdir(parents=True)
    for number, kind in enumerate(["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP"]):
        picture = Image.fromarray(noise(20, 20, 3, number))
        picture.save(tmp_path / "in" / "a" / f"x.{kind.lower()}", kind)
    # Content decides, not the name.
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
    # The folder that is linked to has its images a second time, in a class of their own.
    assert image_set.counts == Counts(found=1230, kept=1170, duplicate=60, rejected=0)
    assert image_set.conflicting == 60
    assert len(image_set.splits["train"].files) <= 6


def test_classes_that_are_numbers_are_in_their_order(spark: SparkSession, tmp_path: Path) -> None:
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
def test_file_that_changes_meanwhile_is_a_reject(
    spark: SparkSession, photos: Path, tmp_path: Path, change: Callable[[Path], None], code: str, says: str
) -> None:
    from cnnlib.config import RejectsSettings
    from pipelines import ingest as flow

    settings = settings_of("image_folder", photos, tmp_path / "set").model_copy(
        update={"rejects": RejectsSettings(max_fraction=0.1, max_mb=0.1)}
    )
    whole = flow.make_writable

    def change_a_file(*arguments: object) -> None:
        # Between the listing and the reading.
        change(photos / "dark" / "004.png")
        whole(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flow, "make_writable", change_a_file)
        image_set = ingest(spark, settings)
    assert image_set.counts == Counts(found=20, kept=19, duplicate=0, rejected=1)
    assert rejects_of(tmp_path / "set") == {"dark/004.png": code}
    (message,) = pq.read_table(tmp_path / "set" / "rejects")["message"].to_pylist()
    assert message.startswith(says)


def test_file_of_too_many_bytes_is_never_read(spark: SparkSession, photos: Path, tmp_path: Path) -> None:
    # More than a row of Spark's can hold, but for the zeros on no disk.
    with (photos / "dark" / "huge.jpg").open("wb") as file:
        file.truncate(3 * 2**30)
    (photos / "dark" / "large.png").write_bytes(png(1, side=300))
    entries = [{"path": f"dark/{name}", "label": "dark"} for name in ("000.png", "huge.jpg", "large.png")]
    limits = {"max_fraction": 0.9, "max_mb": 0.1}
    folder = settings_of("image_folder", photos, tmp_path / "set", rejects=limits)
    assert ingest(spark, folder).counts == Counts(found=22, kept=20, duplicate=0, rejected=2)
    manifest = write_manifest(photos, "csv", entries)
    assert ingest(spark, settings_of("manifest", manifest, tmp_path / "other", rejects=limits)).counts.kept == 1
    for output in ("set", "other"):
        assert rejects_of(tmp_path / output) == {"dark/huge.jpg": "too_many_bytes", "dark/large.png": "too_many_bytes"}


# --- manifests


def write_manifest(path: Path, kind: str, entries: list[dict[str, str | None]]) -> Path:
    manifest = path / f"labels.{kind}"
    frame = pd.DataFrame(entries)
    if kind == "csv":
        frame.to_csv(manifest, index=False)
    elif kind == "jsonl":
        manifest.write_text("\n".join(json.dumps(entry) for entry in entries))
    else:
        frame.to_parquet(manifest)
    return manifest


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_manifest_gives_label_split_and_group(spark: SparkSession, photos: Path, tmp_path: Path, kind: str) -> None:
    elsewhere = tmp_path / "elsewhere, 100%.png"
    elsewhere.write_bytes(png(1))
    entries = [
        {"path": "dark/000.png", "label": "night, or so", "split": "test", "group": None},
        {"path": "./dark/../dark/001.jpg", "label": "night, or so", "split": "train", "group": None},
        {"path": f"file://{elsewhere}", "label": "day", "split": None, "group": "7"},
        {"path": str(photos / "light" / "001.jpg"), "label": "day", "split": None, "group": "7"},
    ]
    manifest = write_manifest(photos, kind, entries)
    image_set = ingest(spark, settings_of("manifest", manifest, tmp_path / "set"))
    assert image_set.counts == Counts(found=4, kept=4, duplicate=0, rejected=0)
    assert image_set.classes == ("day", "night, or so")
    assert label_of(tmp_path / "set") == {
        entry["path"]: image_set.classes.index(str(entry["label"])) for entry in entries
    }
    splits = split_of(tmp_path / "set")
    assert (splits["dark/000.png"], splits["./dark/../dark/001.jpg"]) == ("test", "train")
    assert splits[f"file://{elsewhere}"] == splits[str(photos / "light" / "001.jpg")]


def test_manifest_never_leads_outside(spark: SparkSession, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png(1))
    (photos / "linked").symlink_to(tmp_path)
    (photos / "empty.png").write_bytes(b"")
    entries = [
        {"path": f"{c}/{n:03d}.{'jpg' if n % 2 else 'png'}", "label": c} for c in ("dark", "light") for n in range(10)
    ]
    bad = {
        "../secret.png": "unreadable",
        "dark/../../secret.png": "unreadable",
        "linked/secret.png": "unreadable",
        # To fsspec, what follows :: is no part of the name.
        "linked/secret.png::x": "unreadable",
        "dark/000.png::x": "unreadable",
        "gone.png": "missing_file",
        "dark": "missing_file",
        "empty.png": "empty_file",
    }
    manifest = write_manifest(photos, "csv", entries + [{"path": path, "label": "dark"} for path in bad])
    settings = settings_of("manifest", manifest, tmp_path / "set", rejects={"max_fraction": 0.5})
    image_set = ingest(spark, settings)
    assert image_set.counts == Counts(found=28, kept=20, duplicate=0, rejected=8)
    assert rejects_of(tmp_path / "set") == bad


def test_image_named_twice_under_two_labels_is_a_conflict(spark: SparkSession, photos: Path, tmp_path: Path) -> None:
    entries = [
        {"path": "dark/000.png", "label": "a"},
        {"path": "dark/000.png", "label": "b"},
        {"path": "dark/001.jpg", "label": "a"},
        {"path": "dark/002.png", "label": None},
    ]
    manifest = write_manifest(photos, "csv", entries)
    settings = settings_of("manifest", manifest, tmp_path / "set", rejects={"max_fraction": 0.5})
    image_set = ingest(spark, settings)
    assert image_set.counts == Counts(found=4, kept=1, duplicate=2, rejected=1)
    assert image_set.conflicting == 2
    assert rejects_of(tmp_path / "set") == {"dark/002.png": "unknown_label"}


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([{"file": "a.png", "label": "x"}], "no column path"),
        ([{"path": "a.png"}], "no column label"),
        ([{"path": "a.png", "label": "x", "split": "valid"}], "1 rows with split valid; take train, val, test"),
    ],
)
def test_manifest_that_cannot_be_understood_is_refused(
    spark: SparkSession, tmp_path: Path, entries: list[dict[str, str | None]], says: str
) -> None:
    manifest = write_manifest(tmp_path, "csv", entries)
    with pytest.raises(SourceError, match=says) as error:
        ingest(spark, settings_of("manifest", manifest, tmp_path / "set"))
    assert "\n" not in error.value.message
    assert not (tmp_path / "set").exists()


def test_manifest_of_no_images_or_of_ragged_lines_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    manifest = tmp_path / "images.csv"
    for text, says in (("path,label\n", "of no images"), ("path,label\na.png,x\nb.png\n", "cannot be read by Spark")):
        manifest.write_text(text)
        with pytest.raises(SourceError, match=says) as error:
            ingest(spark, settings_of("manifest", manifest, tmp_path / "set"))
        assert "\n" not in error.value.message
        assert not (tmp_path / "set").exists()


def test_groups_are_not_stratified(spark: SparkSession, photos: Path, tmp_path: Path) -> None:
    entries = [{"path": f"dark/{n:03d}.{'jpg' if n % 2 else 'png'}", "label": "dark", "group": "g"} for n in range(10)]
    manifest = write_manifest(photos, "csv", entries)
    with pytest.raises(ConfigError, match="the source has groups, which must stay whole"):
        ingest(spark, settings_of("manifest", manifest, tmp_path / "set", split={"stratify": True}))


# --- tables


@pytest.fixture
def table(spark: SparkSession, photos: Path, tmp_path: Path) -> Path:
    """What Auto Loader would have written: Spark's binaryFile columns, and some of our own."""
    rows = (
        spark.read.format("binaryFile")
        .option("recursiveFileLookup", "true")
        .load(str(photos))
        .selectExpr(
            "path",
            "modificationTime",
            "length",
            "content",
            "cast(length(path) % 2 as int) as odd",
            "if(path like '%000%', 'test', null) as part",
        )
    )
    rows.write.parquet(str(tmp_path / "table"))
    return tmp_path / "table"


def test_table_takes_its_label_from_the_path(spark: SparkSession, table: Path, tmp_path: Path) -> None:
    settings = settings_of(
        "table", table, tmp_path / "set", source={"label_pattern": "([^/]+)/[^/]+$", "split_column": "part"}
    )
    image_set = ingest(spark, settings)
    assert image_set.classes == ("dark", "light")
    assert image_set.counts == Counts(found=20, kept=20, duplicate=0, rejected=0)
    assert all(image_set.classes[label] in path for path, label in label_of(tmp_path / "set").items())
    # The others are divided between train and val: some images are set apart as test.
    assert [path for path, split in split_of(tmp_path / "set").items() if split == "test"] == [
        path for path in split_of(tmp_path / "set") if "000" in path
    ]


def test_table_is_read_by_its_name(spark: SparkSession, table: Path, tmp_path: Path) -> None:
    spark.read.parquet(str(table)).createOrReplaceTempView("photographs")
    settings = settings_of("table", "photographs", tmp_path / "set", source={"label_column": "odd"})
    image_set = ingest(spark, settings)
    assert image_set.counts.kept == 20
    assert set(image_set.classes) <= {"0", "1"}


def test_table_without_the_columns_is_refused(spark: SparkSession, table: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no column label \(name another with source.label_column"):
        ingest(spark, settings_of("table", table, tmp_path / "set"))
    with pytest.raises(SourceError, match="neither a table that Spark knows nor Parquet"):
        ingest(spark, settings_of("table", "no_such_table", tmp_path / "set"))


# --- arrays


def write_cifar(folder: Path) -> np.ndarray:
    """Two batches of 20 and a test batch of 10 of CIFAR-10's format: (50, 32, 32, 3) uint8."""
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


def test_names_that_hadoop_would_take_for_patterns(spark: SparkSession, tmp_path: Path) -> None:
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
