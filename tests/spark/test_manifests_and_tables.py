"""Manifests and tables: sources that name each image with its label, split and group."""

import json
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pyspark.sql import SparkSession

from cnnlib.errors import ConfigError, SourceError
from cnnlib.image_set.contract import Counts
from pipelines.ingest.flow import ingest
from tests.conftest import write_photos
from tests.spark.ingests import label_of, rejects_of, settings_of, split_of
from tests.unit.pictures import encoded, noise


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """10 dark and 10 light photographs, dark/000.png and so on."""
    return write_photos(tmp_path / "photos #1", per_class=10)


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


@pytest.mark.main_path
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_manifest_gives_label_split_and_group(spark: SparkSession, photos: Path, tmp_path: Path, kind: str) -> None:
    elsewhere = tmp_path / "elsewhere, 100%.png"
    elsewhere.write_bytes(encoded(Image.fromarray(noise(20, 20, 3, 1)), "PNG"))
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
    (tmp_path / "secret.png").write_bytes(encoded(Image.fromarray(noise(20, 20, 3, 1)), "PNG"))
    (photos / "linked").symlink_to(tmp_path)
    (photos / "empty.png").write_bytes(b"")
    entries = [
        {"path": f"{c}/{n:03d}.{'jpg' if n % 2 else 'png'}", "label": c} for c in ("dark", "light") for n in range(10)
    ]
    bad = {
        "../secret.png": "unreadable",
        "dark/../../secret.png": "unreadable",
        "linked/secret.png": "unreadable",
        # fsspec does not take the text after :: as a part of the name.
        "linked/secret.png::x": "unreadable",
        "dark/000.png::x": "unreadable",
        f"{photos}/dark/000.png::x": "unreadable",
        f"file://{photos}/dark/000.png::x": "unreadable",
        "gone.png": "missing_file",
        "dark": "missing_file",
        "empty.png": "empty_file",
    }
    manifest = write_manifest(photos, "csv", entries + [{"path": path, "label": "dark"} for path in bad])
    settings = settings_of("manifest", manifest, tmp_path / "set", rejects={"max_fraction": 0.5})
    image_set = ingest(spark, settings)
    assert image_set.counts == Counts(found=30, kept=20, duplicate=0, rejected=10)
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
        ([{"path": "a.png", "label": "[0, 1]"}], r"has the label \[0, 1\]; several labels for one image"),
        ([{"path": "a.png", "label": "x", "split": "holdout"}], "1 rows with split holdout; use train, val, test"),
    ],
)
def test_malformed_manifest_is_refused(
    spark: SparkSession, tmp_path: Path, entries: list[dict[str, str | None]], says: str
) -> None:
    manifest = write_manifest(tmp_path, "csv", entries)
    with pytest.raises(SourceError, match=says) as error:
        ingest(spark, settings_of("manifest", manifest, tmp_path / "set"))
    assert "\n" not in error.value.message
    assert not (tmp_path / "set").exists()


def test_empty_or_ragged_manifest_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    manifest = tmp_path / "images.csv"
    for text, says in (
        ("path,label\n", "has no images"),
        ("path,label\na.png,x\nb.png\n", "line 3 has 1 values, but the first line has 2"),
    ):
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
    without = write_manifest(photos, "csv", [entry | {"group": ""} for entry in entries])
    assert ingest(spark, settings_of("manifest", without, tmp_path / "set", split={"stratify": True})).counts.kept == 10


def test_group_in_two_splits_is_refused(spark: SparkSession, photos: Path, tmp_path: Path) -> None:
    entries = [
        {"path": f"dark/{n:03d}.{'jpg' if n % 2 else 'png'}", "label": "dark", "group": f"g{n % 3}", "split": split}
        for n, split in enumerate(["train", "val", "", "train", "test", "", "", "", "", ""])
    ]
    manifest = write_manifest(photos, "csv", entries)
    with pytest.raises(SourceError, match="has images of group g1 in test and val, but a group is never divided"):
        ingest(spark, settings_of("manifest", manifest, tmp_path / "set"))


# --- tables


@pytest.fixture
def table(spark: SparkSession, photos: Path, tmp_path: Path) -> Path:
    """A table as Auto Loader writes it: the columns of Spark's binaryFile, and two more."""
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
    # Some images are given as test, so the others are divided between train and val only.
    assert [path for path, split in split_of(tmp_path / "set").items() if split == "test"] == [
        path for path in split_of(tmp_path / "set") if "000" in path
    ]


@pytest.mark.main_path
def test_table_is_read_by_its_name(spark: SparkSession, table: Path, tmp_path: Path) -> None:
    spark.read.parquet(str(table)).createOrReplaceTempView("photographs")
    settings = settings_of("table", "photographs", tmp_path / "set", source={"label_column": "odd"})
    image_set = ingest(spark, settings)
    assert image_set.counts.kept == 20
    assert set(image_set.classes) <= {"0", "1"}


def test_table_without_the_columns_is_refused(spark: SparkSession, table: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no column label \(name another with source.label_column"):
        ingest(spark, settings_of("table", table, tmp_path / "set"))
    with pytest.raises(SourceError, match="neither a path that exists nor a table that Spark knows"):
        ingest(spark, settings_of("table", "no_such_table", tmp_path / "set"))


def test_pattern_that_java_does_not_know_is_refused(spark: SparkSession, table: Path, tmp_path: Path) -> None:
    settings = settings_of("table", table, tmp_path / "set", source={"label_pattern": "(?P<label>[^/]+)/[^/]+$"})
    with pytest.raises(SourceError, match=r"cannot be read by Spark: .*\(\?P<label>") as error:
        ingest(spark, settings)
    assert "\n" not in error.value.message


# --- as other tools write them


def image_rows(labels: list[object]) -> dict[str, list[object]]:
    """Return the columns of a table of noise images with these labels."""
    contents = [encoded(Image.fromarray(noise(20, 20, 3, number)), "PNG") for number in range(len(labels))]
    return {"path": [f"/in/{n}.png" for n in range(len(labels))], "content": contents, "label": labels}


def write_table(folder: Path, labels: pa.Array | list[object]) -> Path:
    values = labels.to_pylist() if isinstance(labels, pa.Array) else labels
    folder.mkdir(parents=True)
    columns = image_rows(values)
    pq.write_table(pa.table({**columns, "label": labels}), folder / "part-0.parquet")
    return folder


@pytest.mark.parametrize(
    ("labels", "classes", "rejected"),
    [
        (pa.array([0.0, 1.0, 10.0, 10.0]), ("0", "1", "10"), 0),
        (pa.array([7.0, None, float("nan"), 8.5]), ("7", "8.5"), 2),
        (pa.array([True, False, True, None]), ("false", "true"), 1),
        (pa.array(["007", "7", "nan", " cat "]), ("007", "7", "cat"), 1),
        (pa.array(["1.0", "2.0", "10.0", ""]), ("1", "2", "10"), 1),
        (pa.array([Decimal("7.00"), Decimal("10.00"), None, Decimal("7.00")]), ("7", "10"), 1),
        (pa.array([3, 20, 100, -1], pa.int8()), ("-1", "3", "20", "100"), 0),
    ],
    ids=["floats", "missing-floats", "booleans", "text", "text-of-floats", "decimals", "integers"],
)
def test_label_keeps_the_spelling_of_its_source(
    spark: SparkSession, tmp_path: Path, labels: pa.Array, classes: tuple[str, ...], rejected: int
) -> None:
    source = write_table(tmp_path / "table", labels)
    settings = settings_of("table", source, tmp_path / "set", rejects={"max_fraction": 0.5})
    image_set = ingest(spark, settings)
    assert (image_set.classes, image_set.counts.rejected) == (classes, rejected)
    assert set(rejects_of(tmp_path / "set").values()) <= {"unknown_label"}


def test_list_of_labels_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    source = write_table(tmp_path / "table", pa.array([[0, 1], [1]]))
    with pytest.raises(SourceError, match="the column label has the type array<bigint>; an image has one label"):
        ingest(spark, settings_of("table", source, tmp_path / "set"))


def test_partitions_of_hive_keep_their_zeros(spark: SparkSession, tmp_path: Path) -> None:
    for number, label in enumerate(("007", "7", "__HIVE_DEFAULT_PARTITION__")):
        folder = tmp_path / "table" / f"label={label}"
        folder.mkdir(parents=True)
        content = encoded(Image.fromarray(noise(20, 20, 3, number)), "PNG")
        pq.write_table(pa.table({"path": [f"/in/{number}.png"], "content": [content]}), folder / "part-0.parquet")
    settings = settings_of("table", tmp_path / "table", tmp_path / "set", rejects={"max_fraction": 0.5})
    image_set = ingest(spark, settings)
    assert (image_set.classes, image_set.counts.rejected) == (("007", "7"), 1)


@pytest.mark.parametrize("log", ["_delta_log/00000000000000000000.json", ".hoodie/hoodie.properties"])
@pytest.mark.parametrize("source_format", ["table", "manifest"])
def test_files_of_a_table_with_a_log_are_refused(
    spark: SparkSession, tmp_path: Path, log: str, source_format: str
) -> None:
    source = write_table(tmp_path / "table", ["cat", "dog"])
    (source / log).parent.mkdir()
    (source / log).write_text('{"remove": {"path": "part-0.parquet"}}')
    kind = "delta" if "delta" in log else "hudi"
    with pytest.raises(SourceError, match=f"is a table of {kind}, and this Spark session cannot read it") as refused:
        ingest(spark, settings_of(source_format, source, tmp_path / "set"))
    assert "\n" not in refused.value.message
    with pytest.raises(SourceError, match=f"is a part of the {kind} table {source}"):
        ingest(spark, settings_of("table", source / "part-0.parquet", tmp_path / "set"))
    # A pattern, and a path that only Spark can see.
    for path in (f"{source}/*.parquet", f"{source}/part-*", f"{tmp_path}/tab*/part-0.parquet"):
        with pytest.raises(SourceError, match=f"is a part of the {kind} table"):
            ingest(spark, settings_of("table", path, tmp_path / "set"))
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("name", ["my-images.parquet", "2024-05-01", "my images", "a.b.c.d", "photos"])
def test_path_that_exists_is_a_path(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_table(tmp_path / name, ["cat", "dog"])
    monkeypatch.chdir(tmp_path)
    assert ingest(spark, settings_of("table", name, tmp_path / "set")).classes == ("cat", "dog")


def test_backquotes_name_a_table(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(tmp_path / "odd-name", ["cat", "dog"])
    other = write_table(tmp_path / "other", ["sun", "moon"])
    monkeypatch.chdir(tmp_path)
    spark.read.parquet(str(other)).createOrReplaceTempView("`odd-name`")
    assert ingest(spark, settings_of("table", "`odd-name`", tmp_path / "set")).classes == ("moon", "sun")
    with pytest.raises(SourceError, match="goes between backquotes: `no-such-table`"):
        ingest(spark, settings_of("table", "no-such-table", tmp_path / "nothing"))


def test_columns_of_other_names_are_read(spark: SparkSession, photos: Path, tmp_path: Path) -> None:
    rows = {"file.name": ["a.png", "b.png"], "bytes": image_rows([0, 1])["content"], "breed": ["collie", "pug"]}
    (tmp_path / "table").mkdir()
    pq.write_table(pa.table(rows), tmp_path / "table" / "part-0.parquet")
    columns = {"path_column": "file.name", "content_column": "bytes", "label_column": "breed"}
    table = settings_of("table", tmp_path / "table", tmp_path / "of_table", source=columns)
    assert ingest(spark, table).classes == ("collie", "pug")
    pd.DataFrame(
        {"file": ["dark/000.png", "light/000.png"], "breed": ["pug", "pug"], "fold": ["Valid", "Training"]}
    ).to_csv(photos / "list.csv", index=False, sep=";")
    columns = {"path_column": "file", "label_column": "breed", "split_column": "fold"}
    manifest = settings_of("manifest", photos / "list.csv", tmp_path / "of_manifest", source=columns)
    assert ingest(spark, manifest).classes == ("pug",)
    assert split_of(tmp_path / "of_manifest") == {"dark/000.png": "val", "light/000.png": "train"}


def test_paths_of_windows_are_refused_in_one_line(spark: SparkSession, photos: Path, tmp_path: Path) -> None:
    for name in (r"dark\000.png", r"C:\data\dark\000.png", "D:/dark/000.png"):
        manifest = write_manifest(photos, "csv", [{"path": name, "label": "a"}, {"path": "dark/000.png", "label": "b"}])
        with pytest.raises(
            SourceError, match="has 1 paths that do not exist here and are written as on Windows"
        ) as refused:
            ingest(spark, settings_of("manifest", manifest, tmp_path / "set"))
        assert "\n" not in refused.value.message
    # A file whose name has a backslash is a file.
    (photos / r"back\slash.png").write_bytes((photos / "dark" / "000.png").read_bytes())
    manifest = write_manifest(photos, "csv", [{"path": r"back\slash.png", "label": "a"}])
    assert ingest(spark, settings_of("manifest", manifest, tmp_path / "set")).counts.kept == 1


def test_uris_as_spark_writes_them_are_found(spark: SparkSession, photos: Path, tmp_path: Path) -> None:
    (photos / "50% off.png").write_bytes(encoded(Image.fromarray(noise(20, 20, 3, 1)), "PNG"))
    (photos / "a%20b.png").write_bytes(encoded(Image.fromarray(noise(20, 20, 3, 2)), "PNG"))
    (photos / "a b.png").write_bytes(encoded(Image.fromarray(noise(20, 20, 3, 3)), "PNG"))
    folder = f"file:{str(photos).replace(' ', '%20').replace('#', '%23')}"
    entries = [
        {"path": f"{folder}/50%25%20off.png", "label": "off"},
        # The file of this very name exists, so nothing is decoded.
        {"path": f"file:{photos}/a%20b.png", "label": "literal"},
        {"path": "a%20b.png ", "label": "literal"},
    ]
    manifest = write_manifest(photos, "csv", entries)
    image_set = ingest(spark, settings_of("manifest", manifest, tmp_path / "set"))
    assert image_set.counts == Counts(found=3, kept=2, duplicate=1, rejected=0)
    assert image_set.classes == ("literal", "off")
