"""Ingest a second time: no work, a refusal, or an update that equals one ingest of everything."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pyspark.sql import SparkSession

from cnnlib.config import IngestSettings, SplitSettings
from cnnlib.errors import OutputExistsError, SourceError
from cnnlib.image_set.contract import ImageSet, open_image_set
from cnnlib.image_set.splits import TEST, TRAIN, assign_split, split_key
from pipelines.ingest import flow
from pipelines.ingest.flow import ingest
from tests.conftest import idx_bytes, write_photos
from tests.spark.ingests import label_of, rejects_of, rows_of, settings_of
from tests.unit.pictures import encoded, noise
from tests.unit.tars import pack


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", per_class=12)


def all_of(source: Path, output: Path, /, **sections: dict) -> IngestSettings:
    return settings_of("image_folder", source, output, rejects={"max_fraction": 0.5}, **sections)


def appending(settings: IngestSettings) -> IngestSettings:
    return settings.model_copy(update={"output": settings.output.model_copy(update={"mode": "append"})})


def write_times(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()
    }


def content_of(folder: Path) -> list[tuple]:
    """Return every kept row and every reject, without the files that they are in."""
    kept = sorted((row["path"], row["split"], row["label"], row["image_id"], row["image"]) for row in rows_of(folder))
    return [*kept, *sorted(rejects_of(folder).items())]


# --- nothing to do


@pytest.mark.main_path
@pytest.mark.parametrize("mode", ["create", "append"])
def test_same_ingest_is_up_to_date_and_decodes_nothing(
    spark: SparkSession, photos: Path, tmp_path: Path, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = all_of(photos, tmp_path / "set", output={"mode": mode})
    first = ingest(spark, settings)
    before = write_times(tmp_path / "set")
    os.chdir(tmp_path)  # The next line spells the same path differently.
    again = settings.model_copy(update={"source": settings.source.model_copy(update={"path": "photos/../photos"})})
    assert ingest(spark, again) == first
    assert "is up to date: no file of the source has changed" in capsys.readouterr().err
    assert write_times(tmp_path / "set") == before


def test_missing_report_is_written_by_the_next_run(spark: SparkSession, photos: Path, tmp_path: Path) -> None:
    settings = all_of(photos, tmp_path / "set")
    ingest(spark, settings)
    whole = (tmp_path / "set" / "report.html").read_text()
    (tmp_path / "set" / "report.html").unlink()
    ingest(spark, settings)
    assert (tmp_path / "set" / "report.html").read_text() == whole


# --- refusals


def test_other_settings_are_refused_by_name(spark: SparkSession, photos: Path, tmp_path: Path) -> None:
    ingest(spark, all_of(photos, tmp_path / "set"))
    before = write_times(tmp_path / "set")
    other = all_of(photos, tmp_path / "set", image={"width": 20}, output={"mode": "append"})
    with pytest.raises(OutputExistsError, match="made with image.width=16, not 20; .*--output.overwrite true"):
        ingest(spark, other)
    elsewhere = shutil.copytree(photos, tmp_path / "elsewhere")
    with pytest.raises(OutputExistsError, match=r"source.path=.*photos, not .*elsewhere"):
        ingest(spark, all_of(elsewhere, tmp_path / "set"))
    assert write_times(tmp_path / "set") == before


@pytest.mark.main_path
def test_changed_source_needs_append_or_overwrite(spark: SparkSession, photos: Path, tmp_path: Path) -> None:
    settings = all_of(photos, tmp_path / "set")
    first = ingest(spark, settings)
    (photos / "dark" / "new.png").write_bytes(encoded(Image.fromarray(noise()), "PNG"))
    with pytest.raises(OutputExistsError, match="--output.mode append .*or --output.overwrite true"):
        ingest(spark, settings)
    assert open_image_set(str(tmp_path / "set")) == first
    overwriting = settings.model_copy(update={"output": settings.output.model_copy(update={"overwrite": True})})
    assert ingest(spark, overwriting).counts.kept == first.counts.kept + 1


# --- updates


def add_images(photos: Path) -> None:
    for number in range(5):
        (photos / "light" / f"new{number}.png").write_bytes(encoded(Image.fromarray(noise(seed=number)), "PNG"))


def add_a_class_that_comes_first(photos: Path) -> None:
    (photos / "bright").mkdir()
    (photos / "bright" / "a.png").write_bytes(encoded(Image.fromarray(noise(seed=1)), "PNG"))


def change_an_image(photos: Path) -> None:
    (photos / "dark" / "000.png").write_bytes(encoded(Image.fromarray(noise(seed=2)), "PNG"))


def take_images_away(photos: Path) -> None:
    for name in ("dark/001.jpg", "light/004.png"):
        (photos / name).unlink()


def add_copies_before_and_behind(photos: Path) -> None:
    shutil.copy(photos / "dark" / "002.png", photos / "dark" / "000a.png")
    shutil.copy(photos / "dark" / "004.png", photos / "dark" / "z.png")


def take_the_first_of_copies_away(photos: Path) -> None:
    (photos / "dark" / "copy1.png").unlink()


def add_a_conflict(photos: Path) -> None:
    shutil.copy(photos / "dark" / "006.png", photos / "light" / "dark006.png")


def end_a_conflict(photos: Path) -> None:
    (photos / "light" / "conflict.png").unlink()


def mend_a_reject_and_add_one(photos: Path) -> None:
    shutil.copy(photos / "dark" / "008.png", photos / "dark" / "broken.png")
    (photos / "light" / "broken too.png").write_text("no image")


@pytest.mark.parametrize(
    "change",
    [
        add_images,
        add_a_class_that_comes_first,
        change_an_image,
        take_images_away,
        add_copies_before_and_behind,
        take_the_first_of_copies_away,
        add_a_conflict,
        end_a_conflict,
        mend_a_reject_and_add_one,
    ],
)
def test_append_equals_one_ingest_of_everything(
    spark: SparkSession,
    photos: Path,
    tmp_path: Path,
    change: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Stratified splits rewrite nearly all files, so test them with a few changes only.
    split = {"stratify": True} if change in (add_images, add_a_class_that_comes_first, take_images_away) else {}
    copy = encoded(Image.fromarray(noise(seed=9)), "PNG")
    for name in ("dark/copy1.png", "dark/copy2.png", "dark/copy3.png"):
        (photos / name).write_bytes(copy)
    shutil.copy(photos / "dark" / "010.png", photos / "light" / "conflict.png")
    (photos / "dark" / "broken.png").write_text("no image")
    fractions = {"val_fraction": 0.25, "test_fraction": 0.25}
    settings = all_of(photos, tmp_path / "set", split=split | fractions)
    first = ingest(spark, settings)
    change(photos)
    capsys.readouterr()
    appended = ingest(spark, appending(settings))
    printed = capsys.readouterr().err
    whole = ingest(spark, all_of(photos, tmp_path / "whole", split=split | fractions))
    assert described(appended) == described(whole)
    assert content_of(tmp_path / "set") == content_of(tmp_path / "whole")
    assert open_image_set(str(tmp_path / "set")) == appended
    if change is change_an_image:
        # Only the changed image was decoded, and only its part file was written again.
        assert "ingest 1 images: done" in printed
        before, after = ({file.path for part in of.splits.values() for file in part.files} for of in (first, appended))
        assert len(before - after) == 1


def a_png(seed: int) -> bytes:
    return encoded(Image.fromarray(noise(seed=seed)), "PNG")


def test_folder_that_comes_beside_splits_is_asked_for(spark: SparkSession, photos: Path, tmp_path: Path) -> None:
    divided = tmp_path / "divided"
    for split in ("train", "test"):
        shutil.copytree(photos, divided / split)
    settings = all_of(divided, tmp_path / "set")
    assert ingest(spark, settings).classes == ("dark", "light")
    before = content_of(tmp_path / "set")
    (divided / "owls").mkdir()
    (divided / "owls" / "owl.png").write_bytes(a_png(2))
    with pytest.raises(SourceError, match=r"--source\.layout splits .*; owls would be left out"):
        ingest(spark, appending(settings))
    assert content_of(tmp_path / "set") == before


def test_shard_folder_that_comes_beside_splits_is_asked_for(spark: SparkSession, tmp_path: Path) -> None:
    def write(name: str, numbers: range) -> None:
        (tmp_path / "shards" / name).mkdir(parents=True)
        members = [((f"{n}.png", a_png(n)), (f"{n}.cls", b"%d" % (n % 2))) for n in numbers]
        (tmp_path / "shards" / name / "0.tar").write_bytes(pack(*(one for pair in members for one in pair)))

    write("train", range(20))
    write("test", range(20, 26))
    settings = settings_of("webdataset", tmp_path / "shards", tmp_path / "set")
    assert ingest(spark, settings).splits[TEST].rows == 6
    write("extra", range(26, 30))
    with pytest.raises(SourceError, match="extra would be left out"):
        ingest(spark, appending(settings))
    as_splits = settings_of("webdataset", tmp_path / "shards", tmp_path / "other", source={"layout": "splits"})
    assert ingest(spark, as_splits).counts.kept == 26


def test_class_that_is_spelled_otherwise_later_keeps_its_images(spark: SparkSession, tmp_path: Path) -> None:
    """All labels are whole numbers first, and one is no number later: then 1.0 is no longer called 1."""
    entries = [{"path": f"{n}.png", "label": label} for n, label in enumerate(("1.0", "2.0", "2.0", "unknown"))]
    for entry in entries:
        (tmp_path / entry["path"]).write_bytes(a_png(int(entry["path"][0])))
    manifest = tmp_path / "images.csv"
    settings = settings_of("manifest", manifest, tmp_path / "set")
    pd.DataFrame(entries[:3]).to_csv(manifest, index=False)
    assert ingest(spark, settings).classes == ("1", "2")
    pd.DataFrame(entries).to_csv(manifest, index=False)
    image_set = ingest(spark, appending(settings))
    assert image_set.classes == ("1.0", "2.0", "unknown")
    labels = {entry["path"]: image_set.classes.index(entry["label"]) for entry in entries}
    assert label_of(tmp_path / "set") == labels
    # And back.
    pd.DataFrame(entries[:3]).to_csv(manifest, index=False)
    assert ingest(spark, appending(settings)).classes == ("1", "2")
    assert label_of(tmp_path / "set") == {"0.png": 0, "1.png": 1, "2.png": 1}


def test_copy_of_another_group_is_kept_after_a_group_moves(spark: SparkSession, tmp_path: Path) -> None:
    groups = {split_of_group(f"g{n}"): f"g{n}" for n in range(100)}
    entries = [
        {"path": "copy a.png", "label": "0", "group": groups[TRAIN], "split": None},
        {"path": "copy b.png", "label": "0", "group": groups[TEST], "split": None},
        {"path": "c.png", "label": "1", "group": "c", "split": None},
        {"path": "d.png", "label": "1", "group": groups[TEST], "split": TRAIN},
    ]
    for name, pixels in zip(("copy a", "copy b", "c", "d"), (1, 1, 2, 3), strict=True):
        (tmp_path / f"{name}.png").write_bytes(a_png(pixels))

    def write(count: int) -> None:
        pd.DataFrame(entries[:count]).to_csv(tmp_path / "images.csv", index=False)

    def kept() -> set[str]:
        return {row["path"] for row in rows_of(tmp_path / "set")}

    write(3)
    settings = settings_of("manifest", tmp_path / "images.csv", tmp_path / "set")
    ingest(spark, settings)
    assert kept() == {"copy b.png", "c.png"}
    write(4)
    appended = ingest(spark, appending(settings))
    assert kept() == {"copy a.png", "c.png", "d.png"}
    whole = ingest(spark, settings_of("manifest", tmp_path / "images.csv", tmp_path / "whole"))
    assert described(appended) == described(whole)
    assert content_of(tmp_path / "set") == content_of(tmp_path / "whole")


def split_of_group(name: str) -> str:
    fractions = SplitSettings()
    return assign_split(
        split_key("", name),
        given=None,
        val_fraction=fractions.val_fraction,
        test_fraction=fractions.test_fraction,
        salt=fractions.salt,
    )


def test_append_reads_an_unreadable_reject_again(
    spark: SparkSession, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, aside = photos / "dark" / "004.png", tmp_path / "aside.png"
    whole = flow.writing_run

    def take_away(*arguments: object) -> object:
        # This runs after the listing. A folder cannot be read as a file.
        chosen.rename(aside)
        chosen.mkdir()
        return whole(*arguments)

    settings = all_of(photos, tmp_path / "set")
    with monkeypatch.context() as patch:
        patch.setattr(flow, "writing_run", take_away)
        ingest(spark, settings)
    assert rejects_of(tmp_path / "set") == {"dark/004.png": "unreadable"}
    chosen.rmdir()
    aside.rename(chosen)
    # The file has the time and size of the listing, so without append it stays a reject.
    assert ingest(spark, settings).counts.rejected == 1
    appended = ingest(spark, appending(settings))
    assert appended.counts.rejected == 0
    assert ingest(spark, appending(settings)) == appended
    whole_set = ingest(spark, all_of(photos, tmp_path / "whole"))
    assert described(appended) == described(whole_set)


def put(file: Path, content: bytes) -> None:
    """Write a file. If it already has this content, do not touch it, so that it keeps its modification time."""
    if not file.exists() or file.read_bytes() != content:
        file.write_bytes(content)


def write_manifest(folder: Path, *, changed: bool) -> Path:
    """Write 10 images. After the change, one has another label, one has other pixels, one is gone, and two are new."""
    labels = {f"{number}.png": str(number % 2) for number in range(10)}
    if changed:
        labels |= {"3.png": "0", "10.png": "1", "11.png": "7"}
        del labels["5.png"]
    for name in labels:
        put(folder / name, a_png(100 if changed and name == "4.png" else int(name[:-4])))
    pd.DataFrame({"path": labels.keys(), "label": labels.values()}).to_csv(folder / "labels.csv", index=False)
    return folder / "labels.csv"


def write_table(folder: Path, *, changed: bool) -> Path:
    """Write 10 images in one file. After the change, another file has 5 more, and one of those is a copy."""
    (folder / "table").mkdir(exist_ok=True)
    rows = pd.DataFrame(
        [{"path": f"s3://b/{n}.png", "content": a_png(n if n < 14 else 0), "label": str(n % 2)} for n in range(15)]
    )
    rows[:10].to_parquet(folder / "table" / "a.parquet")
    if changed:
        rows[10:].to_parquet(folder / "table" / "b.parquet")
    return folder / "table"


def write_shards(folder: Path, *, changed: bool) -> Path:
    """Write two shards of 5 images. After the change, one has a broken image too, and there is a third shard."""
    (folder / "shards").mkdir(exist_ok=True)

    def shard(name: str, numbers: range, *more: tuple[str, bytes]) -> None:
        pairs = [((f"{n}.png", a_png(n)), (f"{n}.cls", b"%d" % (n % 2))) for n in numbers]
        put(folder / "shards" / name, pack(*(member for pair in pairs for member in pair), *more))

    shard("a.tar", range(5))
    shard("b.tar", range(5, 10), *([("x.png", b"no image"), ("x.cls", b"1")] if changed else []))
    if changed:
        shard("c.tar", range(10, 14))
    return folder / "shards"


def write_idx(folder: Path, *, changed: bool) -> Path:
    """Write a pair of training files. After the change, there is a pair of test files too."""
    (folder / "idx").mkdir(exist_ok=True)
    for prefix, count in (("train", 12), ("t10k", 4))[: 2 if changed else 1]:
        pixels = np.random.default_rng(count).integers(0, 256, (count, 16, 16), np.uint8)
        for name, values in (("images-idx3", pixels), ("labels-idx1", np.arange(count, dtype=np.uint8) % 3)):
            put(folder / "idx" / f"{prefix}-{name}-ubyte", idx_bytes(values))
    return folder / "idx"


@pytest.mark.parametrize(
    ("source_format", "write", "decoded"),
    [
        ("manifest", write_manifest, 4),
        ("table", write_table, 5),
        ("webdataset", write_shards, 10),
        ("idx", write_idx, 4),
    ],
    ids=["manifest", "table", "webdataset", "idx"],
)
def test_append_works_for_every_kind_of_source(
    spark: SparkSession,
    tmp_path: Path,
    source_format: str,
    write: Callable[..., Path],
    decoded: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = write(tmp_path, changed=False)
    settings = settings_of(source_format, source, tmp_path / "set", rejects={"max_fraction": 0.5})
    first = ingest(spark, settings)
    assert ingest(spark, appending(settings)) == first
    assert write(tmp_path, changed=True) == source
    capsys.readouterr()
    appended = ingest(spark, appending(settings))
    # The images of unchanged files are not decoded again.
    assert f"ingest {decoded} images: done" in capsys.readouterr().err
    elsewhere = settings.model_copy(
        update={"output": settings.output.model_copy(update={"path": str(tmp_path / "whole")})}
    )
    whole = ingest(spark, elsewhere)
    assert described(appended) == described(whole)
    assert content_of(tmp_path / "set") == content_of(tmp_path / "whole")


def described(image_set: ImageSet) -> dict:
    return {
        "fingerprint": image_set.fingerprint,
        "counts": image_set.counts,
        "classes": image_set.classes,
        "statistics": (image_set.mean, image_set.std),
        "rejected": image_set.rejected_by_code,
        "conflicting": image_set.conflicting,
        "splits": {name: split.class_counts for name, split in image_set.splits.items()},
        "source": image_set.source_digest,
    }
