"""What lies beside images: it is left out, counted and told, by every source, in ingest and in score."""

import io
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from pyspark.sql import SparkSession
from rich.console import Console

from cnnlib.config import PredictionSettings, ScoreInputSettings
from cnnlib.errors import SourceError
from cnnlib.image_set.contract import Counts, ImageSet, open_image_set
from pipelines.ingest.flow import ingest
from pipelines.score.flow import score
from pipelines.spark.progress import Progress
from tests.conftest import write_photos
from tests.spark.conftest import Trained
from tests.spark.ingests import label_of, settings_of, split_of
from tests.spark.test_score import rows_of, settings
from tests.unit.pictures import encoded, noise
from tests.unit.tars import pack

# The header of the files that macOS writes beside others.
APPLE_DOUBLE = b"\0\5\26\7\0\2\0\0Mac OS X        "


@pytest.fixture
def said() -> tuple[Progress, Callable[[], str]]:
    """A progress display, and a function that returns what it has shown."""
    console = Console(file=io.StringIO(), width=500)
    return Progress(console), lambda: console.file.getvalue()


def png(seed: int) -> bytes:
    return encoded(Image.fromarray(noise(20, 20, 3, seed)), "PNG")


_SEEDS = itertools.count(1000)


def write_images(folder: Path, count: int, suffix: str = ".png") -> None:
    """Write images, each of other pixels than all before it."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number:03d}{suffix}").write_bytes(png(next(_SEEDS)))


def litter(photos: Path) -> None:
    """Add what macOS, Windows, Jupyter and Synology leave behind: 10 hidden files, 4 of systems."""
    for path in sorted(photos.glob("dark/*"))[:5]:
        path.with_name(f"._{path.name}").write_bytes(APPLE_DOUBLE)
    (photos / "dark" / ".ipynb_checkpoints").mkdir()
    for path in sorted(photos.glob("dark/[0-9]*"))[:4]:
        shutil.copy(path, photos / "dark" / ".ipynb_checkpoints" / f"{path.stem}-checkpoint{path.suffix}")
    (photos / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    for folder in ("__MACOSX/light", "light/@eaDir"):
        (photos / folder).mkdir(parents=True)
        shutil.copy(photos / "light" / "001.jpg", photos / folder / "001.jpg")
    (photos / "light" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (photos / "desktop.ini").write_text("[.ShellClassInfo]")


LITTER = {"hidden": 10, "system files": 4}


def test_litter_of_systems_is_left_out(
    spark: SparkSession, tmp_path: Path, said: tuple[Progress, Callable[[], str]]
) -> None:
    photos = write_photos(tmp_path / "photos", per_class=10)
    clean = ingest(spark, settings_of("image_folder", photos, tmp_path / "clean"))
    litter(photos)
    progress, text = said
    image_set = ingest(spark, settings_of("image_folder", photos, tmp_path / "set"), progress)
    assert image_set.counts == Counts(found=20, kept=20, duplicate=0, rejected=0)
    assert image_set.left_out == LITTER
    assert (image_set.fingerprint, image_set.classes) == (clean.fingerprint, ("dark", "light"))
    assert "left out: 14 files (10 hidden, 4 system files)" in text()
    assert open_image_set(str(tmp_path / "set")).left_out == LITTER
    assert "14 files (10 hidden, 4 system files)" in (tmp_path / "set" / "report.html").read_text()


def test_scoring_leaves_the_same_files_out(
    spark: SparkSession, trained: Trained, tmp_path: Path, said: tuple[Progress, Callable[[], str]]
) -> None:
    photos = write_photos(tmp_path / "photos", per_class=10)
    litter(photos)
    (photos / "notes.txt").write_text("no image")
    progress, text = said
    source = ScoreInputSettings(path=str(photos), format="image_folder")
    every = score(spark, settings(trained, tmp_path / "every", input=source), progress)
    assert every.counts == {"rows": 20, "scored": 20, "failed": 0}
    assert every.left_out == LITTER | {".txt": 1}
    assert json.loads((tmp_path / "every" / "summary.json").read_text())["left_out"] == LITTER | {".txt": 1}
    assert "left out: 15 files" in text()
    stream = PredictionSettings(mode="stream")
    new = score(spark, settings(trained, tmp_path / "new", input=source, score=stream))
    assert sorted(rows_of(new).path) == sorted(rows_of(every).path)
    # Spark itself passes files over whose name, or that of a folder above them, begins with a dot or an underscore.
    assert new.left_out == {"system files": 3, ".txt": 1}


def test_stream_batch_without_an_image_is_done(spark: SparkSession, trained: Trained, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "notes.txt").write_text("no image")
    source = ScoreInputSettings(path=str(photos), format="image_folder")
    asked = settings(trained, tmp_path / "out", input=source, score=PredictionSettings(mode="stream"))
    assert score(spark, asked).counts == {"rows": 0, "scored": 0, "failed": 0}
    write_images(photos, 2)
    # An ending that nobody knows: the content decides.
    (photos / "camera.raw1").write_bytes(png(7))
    assert score(spark, asked).counts == {"rows": 3, "scored": 3, "failed": 0}


def test_every_file_with_an_unknown_ending_is_an_image_or_counted(
    spark: SparkSession, tmp_path: Path, said: tuple[Progress, Callable[[], str]]
) -> None:
    source = tmp_path / "in"
    write_images(source / "a", 4)
    write_images(source / "b", 4, ".HEIC")  # PNG in truth
    for suffix in ("", ".JPG ", ".download"):
        write_images(source / "c", 2, suffix)
    for name, kind in (("d.ppm", "PPM"), ("d.jp2", "JPEG2000")):
        (source / "c" / name).write_bytes(encoded(Image.fromarray(noise(20, 20, 3, len(name) + ord(name[2]))), kind))
    (source / "raw").mkdir()
    for number in range(3):
        (source / "raw" / f"{number}.CR2").write_bytes(b"not one of Pillow's formats")
    for name in ("README", "labels.txt", "a/labels.txt", "a/boxes.xml"):
        (source / name).write_text("text")
    (source / "a" / "empty.dat").write_bytes(b"")
    progress, text = said
    image_set = ingest(spark, settings_of("image_folder", source, tmp_path / "set"), progress)
    assert image_set.classes == ("a", "b", "c")
    assert image_set.counts == Counts(found=16, kept=16, duplicate=0, rejected=0)
    assert image_set.left_out == {".cr2": 3, ".txt": 2, ".dat": 1, ".xml": 1, "no ending": 1}
    assert "warning: the folder raw has no image, so it is no class: 3 files (3 .cr2) left out" in text()


def test_many_files_are_looked_into_by_tasks(spark: SparkSession, tmp_path: Path) -> None:
    for number in range(90):
        folder = tmp_path / "in" / f"class {number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.image").write_bytes(png(number) if number % 3 else b"text")
    image_set = ingest(spark, settings_of("image_folder", tmp_path / "in", tmp_path / "set"))
    assert image_set.counts.kept == 60
    assert image_set.left_out == {".image": 30}


def test_folder_without_any_image_says_what_it_has(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "in" / "a" / "x.mov").write_bytes(b"\0\0\0\x14ftypqt  ")
    with pytest.raises(SourceError, match=r"has no images, but 1 file \(1 \.mov\); expected"):
        ingest(spark, settings_of("image_folder", tmp_path / "in", tmp_path / "set"))


def test_usual_names_of_splits_are_splits(spark: SparkSession, tmp_path: Path) -> None:
    for split, images in (("Train", 5), ("valid", 3), ("TESTING", 2)):
        for class_name in ("cat", "dog"):
            write_images(tmp_path / "in" / split / class_name, images)
    image_set = ingest(spark, settings_of("image_folder", tmp_path / "in", tmp_path / "set"))
    assert image_set.classes == ("cat", "dog")
    assert {name: split.class_counts for name, split in image_set.splits.items()} == {
        "train": (5, 5),
        "val": (3, 3),
        "test": (2, 2),
    }


def test_folder_beside_splits_is_left_out_if_asked(spark: SparkSession, tmp_path: Path) -> None:
    for folder in ("train/cat", "train/dog", "test/cat", "test/dog", "unlabeled"):
        write_images(tmp_path / "in" / folder, 3)
    with pytest.raises(SourceError, match=r"--source\.layout splits"):
        ingest(spark, settings_of("image_folder", tmp_path / "in", tmp_path / "set"))
    assert not (tmp_path / "set").exists()
    as_splits = settings_of("image_folder", tmp_path / "in", tmp_path / "set", source={"layout": "splits"})
    image_set = ingest(spark, as_splits)
    assert (image_set.counts.kept, image_set.left_out) == (12, {"in no split": 3})
    assert set(split_of(tmp_path / "set").values()) == {"train", "test"} | (
        {"val"} if image_set.splits["val"].rows else set()
    )


def joined(spark: SparkSession, source: str, path: Path, output: Path, progress: Progress) -> tuple[ImageSet, ImageSet]:
    """Ingest a source as it is, and with names of classes joined."""
    apart = ingest(spark, settings_of(source, path, output / "apart"), progress)
    return apart, ingest(spark, settings_of(source, path, output / "one", source={"join_spellings": True}), progress)


def test_spellings_of_a_class_are_told_and_joined(
    spark: SparkSession, tmp_path: Path, said: tuple[Progress, Callable[[], str]]
) -> None:
    for name in ("K\u00fcse", "Ku\u0308se", "dog"):
        write_images(tmp_path / "in" / name, 4)
    progress, text = said
    apart, one = joined(spark, "image_folder", tmp_path / "in", tmp_path, progress)
    assert apart.classes == ("Ku\u0308se", "K\u00fcse", "dog")
    assert r"'Ku\u0308se' and 'K\xfcse'" in text()
    assert one.classes == ("K\u00fcse", "dog")
    assert sorted(label_of(tmp_path / "one").values()) == [0] * 8 + [1] * 4
    # A spelling that comes later, and first in order, renames the class of the images that are there.
    write_images(tmp_path / "in" / "DOG", 1)
    more = ingest(
        spark,
        settings_of(
            "image_folder",
            tmp_path / "in",
            tmp_path / "one",
            source={"join_spellings": True},
            output={"mode": "append"},
        ),
    )
    assert more.classes == ("DOG", "K\u00fcse")
    assert sorted(label_of(tmp_path / "one").values()) == [0] * 5 + [1] * 8


def test_manifest_of_a_listing_leaves_litter_out(
    spark: SparkSession, tmp_path: Path, said: tuple[Progress, Callable[[], str]]
) -> None:
    photos = write_photos(tmp_path / "photos", per_class=10)
    entries = [
        {"path": f"{path.parent.name}/{path.name}", "label": path.parent.name, "split": split}
        for number, path in enumerate(sorted(photos.glob("*/*")))
        for split in [("Validation", "TEST", "train", "")[number % 4]]
    ]
    entries += [
        {"path": "dark/._000.png", "label": "dark"},
        {"path": "__MACOSX/dark/a.png", "label": "dark"},
        {"path": "dark/Thumbs.db", "label": "Dark"},
    ]
    pd.DataFrame(entries).to_csv(photos / "list.csv", index=False)
    progress, text = said
    image_set = ingest(spark, settings_of("manifest", photos / "list.csv", tmp_path / "set"), progress)
    assert image_set.counts == Counts(found=20, kept=20, duplicate=0, rejected=0)
    assert (image_set.left_out, image_set.classes) == ({"system files": 3}, ("dark", "light"))
    assert image_set.splits["val"].rows >= 5 <= image_set.splits["test"].rows
    assert "left out: 3 files (3 system files)" in text()


def test_table_of_a_listing_leaves_litter_out(spark: SparkSession, tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", per_class=10)
    litter(photos)
    found = spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(str(photos))
    named = spark.createDataFrame([(f"{photos}/dark/._a.png", b"Mac OS X")], "path string, content binary")
    found.select("path", "content").unionByName(named).write.parquet(str(tmp_path / "table"))
    source = {"label_pattern": "([^/]+)/[^/]+$"}
    image_set = ingest(spark, settings_of("table", tmp_path / "table", tmp_path / "set", source=source))
    # Spark has passed hidden files over, and __MACOSX.
    assert image_set.counts == Counts(found=20, kept=20, duplicate=0, rejected=0)
    assert image_set.left_out == {"system files": 4}


def test_shards_leave_litter_out_and_tell_their_splits(spark: SparkSession, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    for number, name in enumerate(("cats-train-0", "cats-train-1", "cats-val-0")):
        members = [
            member
            for key in range(4)
            for member in ((f"./{key}.png", png(100 * number + key)), (f"./{key}.cls", b"cat" if key % 2 else b"dog"))
        ]
        litter = [("./._0.png", APPLE_DOUBLE), ("__MACOSX/._1.png", APPLE_DOUBLE), ("./0.txt", b"a caption")]
        (shards / f"{name}.tar").write_bytes(pack(*members, *litter))
    shutil.copy(shards / "cats-val-0.tar", shards / "._cats-val-0.tar")
    image_set = ingest(spark, settings_of("webdataset", shards, tmp_path / "set"))
    assert image_set.counts == Counts(found=12, kept=12, duplicate=0, rejected=0)
    assert image_set.left_out == {"hidden": 6, ".txt": 3}
    assert {path.split("#")[0]: split for path, split in split_of(tmp_path / "set").items()} == {
        "cats-train-0.tar": "train",
        "cats-train-1.tar": "train",
        "cats-val-0.tar": "val",
    }


def test_digits_from_a_mac_are_read(spark: SparkSession, digits_idx: Path, tmp_path: Path) -> None:
    source = shutil.copytree(digits_idx, tmp_path / "digits")
    for path in list(source.iterdir()):
        path.with_name(f"._{path.name}").write_bytes(APPLE_DOUBLE)
    settings = settings_of("idx", source, tmp_path / "set", image={"height": None, "width": None})
    assert ingest(spark, settings).counts.found == 800
