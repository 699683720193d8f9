"""Duplicates, conflicts and splits that depend on all images. Spark computes them from a ledger."""

import hashlib
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pyspark.sql import SparkSession

from cnnlib.config import SplitSettings
from cnnlib.image_set.contract import Counts, open_image_set
from cnnlib.image_set.splits import assign_split, split_key
from pipelines.ingest.decide import decide
from pipelines.ingest.flow import ingest
from pipelines.ingest.near_duplicates import near_pairs
from tests.conftest import write_photos
from tests.spark.ingests import label_of, rows_of, settings_of, split_of
from tests.unit.pictures import noise

LEDGER_TYPE = (
    "path string, pixel_id string, class_name string, group_name string, given_split string, perceptual_hash long, "
    "code string, outcome string, split string, conflicting boolean"
)


def decided(spark: SparkSession, rows: list[dict], **settings: object) -> dict[str, tuple]:
    """Return the decision for each row of a ledger, by path: (outcome, split, conflicting)."""
    names = [column.split()[0] for column in LEDGER_TYPE.split(", ")]
    frame = spark.createDataFrame([tuple(row.get(name) for name in names) for row in rows], LEDGER_TYPE)
    return {
        row["path"]: (row["outcome"], row["split"], row["conflicting"])
        for row in decide(frame, SplitSettings(**settings), grouped=True).collect()
    }


def image(path: str, pixels: str, class_name: str | None = "a", **more: object) -> dict:
    return {
        "path": path,
        "pixel_id": hashlib.sha256(pixels.encode()).hexdigest(),
        "class_name": class_name,
    } | more


# --- splits by hash


def test_group_follows_the_given_split_of_one_image(spark: SparkSession) -> None:
    rows = [image(f"p{n}", str(n), group_name=f"g{n % 10}") for n in range(100)]
    rows[13]["given_split"] = "test"
    rows += [image("alone", "alone", given_split="test"), image("nobody's", "nobody's")]
    found = decided(spark, rows, val_fraction=0.2, test_fraction=0.2)
    splits = {path: split for path, (_, split, _) in found.items()}
    of_groups = [{splits[f"p{n}"] for n in range(group, 100, 10)} for group in range(10)]
    assert of_groups[3] == {"test"}
    assert {len(found) for found in of_groups} == {1}
    assert set.union(*of_groups) > {"test"}


@pytest.mark.main_path
def test_spark_splits_as_the_tasks_do(spark: SparkSession) -> None:
    rows = [image(f"p{n}", str(n), group_name=f"g{n % 7}" if n % 3 else None) for n in range(300)]
    found = decided(spark, rows, val_fraction=0.3, test_fraction=0.2, salt="salt")
    expected = {
        row["path"]: assign_split(
            split_key(row["pixel_id"], row["group_name"]), given=None, val_fraction=0.3, test_fraction=0.2, salt="salt"
        )
        for row in rows
    }
    assert {path: split for path, (_, split, _) in found.items()} == expected
    assert set(expected.values()) == {"train", "val", "test"}


# --- copies


def test_first_path_of_equal_pixels_is_kept(spark: SparkSession) -> None:
    found = decided(spark, [image("b", "x"), image("a", "x"), image("c", "x"), image("d", "y")], test_fraction=0.0)
    assert {path: outcome for path, (outcome, _, _) in found.items()} == {
        "a": "kept",
        "b": "duplicate",
        "c": "duplicate",
        "d": "kept",
    }
    assert [found[path][1] for path in "bc"] == [None, None]


def test_held_out_copy_is_kept(spark: SparkSession) -> None:
    rows = [
        image("a", "x", given_split="train"),
        image("b", "x", given_split="test"),
        image("c", "y", given_split="train"),
        image("d", "y", given_split="val"),
    ]
    assert decided(spark, rows) == {
        "a": ("duplicate", None, False),
        "b": ("kept", "test", False),
        "c": ("duplicate", None, False),
        "d": ("kept", "val", False),
    }


def test_conflicts_are_left_out(spark: SparkSession) -> None:
    rows = [image("1", "x", "a"), image("2", "x", "b"), image("3", "x", "a"), image("4", "y", "a")]
    found = decided(spark, rows, val_fraction=0.0, test_fraction=0.0)
    assert found == {
        "1": ("duplicate", None, True),
        "2": ("duplicate", None, True),
        "3": ("duplicate", None, True),
        "4": ("kept", "train", False),
    }


def test_kept_conflict_has_one_image_per_class_in_one_split(spark: SparkSession) -> None:
    rows = [
        image("1", "x", "a", given_split="train"),
        image("2", "x", "b", given_split="val"),
        image("3", "x", "a", given_split="val"),
        image("4", "x", "a", given_split="val"),
    ]
    found = decided(spark, rows, conflicts="keep")
    assert found == {
        "1": ("duplicate", None, True),
        "2": ("kept", "val", True),
        "3": ("kept", "val", True),
        "4": ("duplicate", None, True),
    }


def test_rejects_and_unlabelled_images_cause_no_conflict(spark: SparkSession) -> None:
    rows = [image("1", "x", None), image("2", "x", None), {"path": "3", "code": "truncated"}]
    found = decided(spark, rows, val_fraction=0.0, test_fraction=0.0)
    assert found == {"1": ("kept", "train", False), "2": ("duplicate", None, False), "3": ("rejected", None, None)}


# --- fractions in each class


def test_stratified_fractions_hold_in_each_class(spark: SparkSession) -> None:
    sizes = {"a": 203, "b": 37, "c": 10, "d": 1}
    rows = [image(f"{c}{n}", f"{c}{n}", c) for c, size in sizes.items() for n in range(size)]
    rows += [image(f"given{n}", f"given{n}", "a", given_split="test") for n in range(50)]
    found = decided(spark, rows, stratify=True, val_fraction=0.1, test_fraction=0.2)
    counts: dict[str, Counter] = defaultdict(Counter)
    for path, (_, split, _) in found.items():
        counts[path.rstrip("0123456789")][split] += 1
    for class_name, size in sizes.items():
        assert abs(counts[class_name]["test"] - 0.2 * size) <= 1
        assert abs(counts[class_name]["val"] - 0.1 * size) <= 1
        assert counts[class_name].total() == size
    assert counts["given"] == {"test": 50}


# --- near duplicates


def signed(bits: int) -> int:
    return bits - 2**64 if bits >= 2**63 else bits


@pytest.mark.parametrize("distance", [0, 1, 4, 9])
def test_near_pairs_are_all_pairs_within_the_distance(spark: SparkSession, distance: int) -> None:
    random = np.random.default_rng(distance)
    bases = [int(bits) for bits in random.integers(0, 2**64, 30, dtype=np.uint64)]
    hashes = list(bases)
    for base in bases:
        for flips in (1, 3, 4, 5, 9, 12):
            for bit in random.choice(64, flips, replace=False):
                base ^= 1 << int(bit)
            hashes.append(base)
    values = sorted({signed(bits) for bits in hashes})
    frame = spark.createDataFrame([(value,) for value in values], "perceptual_hash long")
    found = {(row["a"], row["b"]) for row in near_pairs(frame, distance).collect()}
    expected = {(a, b) for a in values for b in values if a < b and ((a ^ b) & (2**64 - 1)).bit_count() <= distance}
    assert found == expected
    assert bool(expected) == (distance > 0)


def test_near_duplicates_get_one_split_over_chains_and_groups(spark: SparkSession) -> None:
    rows = [image(f"alone{n}", f"alone{n}", perceptual_hash=n * 0x123456789ABCDEF) for n in range(1, 60)]
    chain = [
        image("near0", "n0", perceptual_hash=-1),
        image("near1", "n1", perceptual_hash=-1 ^ 0b11),
        image("near2", "n2", perceptual_hash=-1 ^ 0b1111),
        image("near3", "n3", perceptual_hash=-1 ^ 0b1111, group_name="g"),
        image("near4", "n4", perceptual_hash=0x0F0F0F0F0F0F0F0F, group_name="g"),
    ]
    settings = {"val_fraction": 0.3, "test_fraction": 0.3}
    found = decided(spark, rows + chain, near_duplicates=2, **settings)
    assert len({split for path, (_, split, _) in found.items() if path.startswith("near")}) == 1
    assert {outcome for outcome, _, _ in found.values()} == {"kept"}
    plain = decided(spark, rows + chain, **settings)
    assert len({split for path, (_, split, _) in plain.items() if path.startswith("near")}) > 1
    assert {p: s for p, s in found.items() if p.startswith("alone")} == {
        p: s for p, s in plain.items() if p.startswith("alone")
    }


def test_near_duplicates_follow_a_given_split(spark: SparkSession) -> None:
    rows = [
        image("a", "1", perceptual_hash=5),
        image("b", "2", perceptual_hash=4, given_split="test"),
        image("c", "3", perceptual_hash=5, given_split="train"),
    ]
    found = decided(spark, rows, near_duplicates=1, val_fraction=0.0, test_fraction=0.0)
    assert {path: split for path, (_, split, _) in found.items()} == {"a": "test", "b": "test", "c": "train"}


# --- in a whole ingest


@pytest.mark.main_path
def test_equal_pixels_are_kept_once_and_conflicts_left_out(spark: SparkSession, tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "in", per_class=10)
    with Image.open(photos / "dark" / "000.png") as picture:
        picture.save(photos / "dark" / "000 again.bmp")
    with Image.open(photos / "light" / "002.png") as picture:
        picture.save(photos / "dark" / "is light.png", compress_level=1)
    image_set = ingest(spark, settings_of("image_folder", photos, tmp_path / "set"))
    assert image_set.counts == Counts(found=22, kept=19, duplicate=3, rejected=0)
    assert image_set.conflicting == 2
    assert open_image_set(str(tmp_path / "set")) == image_set
    kept = set(label_of(tmp_path / "set"))
    assert "dark/000 again.bmp" in kept
    assert not kept & {"dark/000.png", "dark/is light.png", "light/002.png"}


def test_stratified_set_has_its_fractions_and_its_pixels(spark: SparkSession, tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "in", per_class=20)
    plain = ingest(spark, settings_of("image_folder", photos, tmp_path / "plain"))
    settings = settings_of(
        "image_folder",
        photos,
        tmp_path / "set",
        split={"stratify": True, "val_fraction": 0.25, "test_fraction": 0.1},
    )
    image_set = ingest(spark, settings)
    assert {name: split.class_counts for name, split in image_set.splits.items()} == {
        "train": (13, 13),
        "val": (5, 5),
        "test": (2, 2),
    }
    assert plain.splits["test"].class_counts != (2, 2) or plain.splits["val"].class_counts != (5, 5)

    def pixels_of(folder: Path) -> dict[str, bytes]:
        return {row["path"]: row["image"] for row in rows_of(folder)}

    assert pixels_of(tmp_path / "set") == pixels_of(tmp_path / "plain")


def test_near_duplicates_of_photographs_get_one_split(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "in" / "a").mkdir(parents=True)
    for number in range(12):
        picture = Image.fromarray(noise(6, 6, 3, number)).resize((120, 120), Image.Resampling.BICUBIC)
        for quality in (95, 60, 30):
            picture.save(tmp_path / "in" / "a" / f"{number:02d}-{quality}.jpg", quality=quality)
    fractions = {"val_fraction": 0.3, "test_fraction": 0.3}
    image = {"height": 64, "width": 64}
    near = settings_of(
        "image_folder", tmp_path / "in", tmp_path / "near", split=fractions | {"near_duplicates": 6}, image=image
    )
    image_set = ingest(spark, near)
    assert image_set.counts.kept == 36
    splits: dict[str, set[str]] = defaultdict(set)
    for path, split in split_of(tmp_path / "near").items():
        splits[path.split("-")[0]].add(split)
    assert all(len(found) == 1 for found in splits.values())
    assert len(set.union(*splits.values())) == 3
