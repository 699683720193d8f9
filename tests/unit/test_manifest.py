"""Manifests: the meaning of their paths, none of which leads out of the folder that the user named."""

import os
import posixpath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cnnlib.config.sources import ManifestSource
from cnnlib.errors import ImageError, SourceError
from cnnlib.sources.manifest import (
    Columns,
    find_columns,
    format_of,
    is_absolute,
    links_out,
    other_readings,
    resolve,
)

# --- resolve


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.jpg", "a.jpg"),
        ("./cat//a.jpg", "cat/a.jpg"),
        ("cat/../dog/a.jpg", "dog/a.jpg"),
        ("cat/..a/...jpg", "cat/..a/...jpg"),
        ("a b#1?x=%2e%2e%2f[0-9]{a,b}*.jpg", "a b#1?x=%2e%2e%2f[0-9]{a,b}*.jpg"),
        ("Küche/猫.jpg", "Küche/猫.jpg"),
        (" a.jpg ", " a.jpg "),
        ("..\\a.jpg", "..\\a.jpg"),
        ("C:\\a.jpg", "C:\\a.jpg"),
        ("C:/a.jpg", "C:/a.jpg"),
        ("~/a.jpg", "~/a.jpg"),
        ("$HOME/a.jpg", "$HOME/a.jpg"),
        ("12:30/a.jpg", "12:30/a.jpg"),
        ("a:b.jpg", "a:b.jpg"),
    ],
)
def test_relative_path_stays_itself_without_dots(path, expected):
    assert resolve(path, "/data/set") == expected
    assert not is_absolute(resolve(path, "s3a://bucket/set"))


@pytest.mark.parametrize(
    ("path", "folder", "expected"),
    [
        ("s3a://bucket/a b#1.jpg", "/data", "s3a://bucket/a b#1.jpg"),
        ("file:///data/../a.jpg", "/data", "file:///data/../a.jpg"),
        ("file:/data/a.jpg", "s3a://bucket/set", "file:/data/a.jpg"),
        ("dbfs:/FileStore/a.jpg", "/data", "dbfs:/FileStore/a.jpg"),
        (
            "abfss://container@account.dfs.core.windows.net/a.jpg",
            "x",
            "abfss://container@account.dfs.core.windows.net/a.jpg",
        ),
        ("/data/./a.jpg", "/set", "/data/a.jpg"),
        ("/../../a.jpg", "/set", "/a.jpg"),
        ("//data/a.jpg", "/set", "/data/a.jpg"),
        ("/Volumes/a.jpg", "dbfs:/set", "dbfs:/Volumes/a.jpg"),
        ("/a.jpg", "s3a://bucket/set", "s3a://bucket/a.jpg"),
        ("/a.jpg", "file:///set", "file:///a.jpg"),
        ("/a.jpg", "set:1/here", "/a.jpg"),
    ],
)
def test_absolute_path_and_uri_are_unchanged(path, folder, expected):
    assert resolve(path, folder) == expected
    assert is_absolute(expected)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (None, "empty"),
        ("", "empty"),
        ("a\0.jpg", "NUL"),
        ("/a\0.jpg", "NUL"),
        ("file:///a\0.jpg", "NUL"),
        ("..", "leads out"),
        ("../a.jpg", "leads out"),
        ("cat/../../a.jpg", "leads out"),
        ("./../set/a.jpg", "leads out"),
        (".", "names a folder"),
        ("cat/..", "names a folder"),
        ("cat/", "names a folder"),
        ("./file:/etc/passwd", "looks like a URI"),
        ("cat/../file:///etc/passwd", "looks like a URI"),
    ],
)
def test_path_that_escapes_or_names_no_file_is_unreadable(path, says):
    with pytest.raises(ImageError, match=says) as caught:
        resolve(path, "/data/set")
    assert caught.value.code == "unreadable"


parts = st.sampled_from(["..", ".", "", "a", "b.jpg", "file:", "s3a:", "~", "\\", "..\\..", "%2e%2e", " ", "\0", "ü*"])
paths = st.lists(parts, max_size=8).map("/".join) | st.text(max_size=30)


@given(paths, st.sampled_from(["/data/set", "s3a://bucket/set", "file:///data", "dbfs:/data"]))
@example("a/../s3a:/b", "/data/set")
def test_no_relative_path_ever_escapes(path, folder):
    try:
        resolved = resolve(path, folder)
    except ImageError:
        return
    assert "\0" not in resolved
    if is_absolute(resolved):
        assert is_absolute(path)
    else:
        assert ".." not in resolved.split("/")
        assert posixpath.normpath(f"/data/set/{resolved}") == f"/data/set/{resolved}"
        assert resolve(resolved, folder) == resolved


# --- links_out


def test_links_that_stay_within_are_no_way_out(tmp_path):
    root, outside = tmp_path / "set", tmp_path / "outside"
    (root / "cat").mkdir(parents=True)
    outside.mkdir()
    (root / "cat/a.jpg").write_bytes(b"1")
    (outside / "b.jpg").write_bytes(b"2")
    (root / "near.jpg").symlink_to("cat/a.jpg")
    (root / "far.jpg").symlink_to(outside / "b.jpg")
    (root / "dog").symlink_to(outside)
    (root / "chain.jpg").symlink_to("far.jpg")
    (root / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "alias").symlink_to(root)
    (tmp_path / "set2").mkdir()
    for base in (root, tmp_path / "alias"):
        found = {
            name: links_out(os.path.join(base, name), str(base))
            for name in ("cat/a.jpg", "near.jpg", "far.jpg", "dog/b.jpg", "chain.jpg", "loop.jpg", "not_there.jpg")
        }
        assert found == {
            "cat/a.jpg": False,
            "near.jpg": False,
            "far.jpg": True,
            "dog/b.jpg": True,
            "chain.jpg": True,
            "loop.jpg": False,
            "not_there.jpg": False,
        }
    assert links_out(str(tmp_path / "set2" / "a.jpg"), str(root))
    assert not links_out(str(root / "cat/a.jpg"), "/")


# --- formats, columns, splits


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.csv", "csv"),
        ("s3a://b/a.JSONL", "jsonl"),
        ("a.ndjson", "jsonl"),
        ("a.TSV", "csv"),
        ("a.txt", "csv"),
        ("a.json", "jsonl"),
        ("a.b.parquet", "parquet"),
    ],
)
def test_format_follows_from_the_ending(path, expected):
    assert format_of(path) == expected


def test_folder_is_parquet_whatever_its_name():
    assert format_of("labels.csv", is_folder=True) == format_of("labels", is_folder=True) == "parquet"


@pytest.mark.parametrize("path", ["labels", "a.xlsx", "a.csv.zip", "csv", ".csv/labels"])
def test_other_endings_are_refused(path):
    with pytest.raises(SourceError, match=r"does not end like a manifest; name a file that ends in \.csv, \.tsv"):
        format_of(path)


def settings(**more: str) -> ManifestSource:
    return ManifestSource(path="a.csv", **more)


@pytest.mark.parametrize(
    ("names", "more", "expected"),
    [
        (["path", "label", "width"], {}, Columns("path", "label")),
        (["split", "group", "label", "path"], {}, Columns("path", "label", "split", "group")),
        (["Path", "LABEL", "Split"], {}, Columns("Path", "LABEL", "Split")),
        (["path", "Path", "label"], {}, Columns("path", "label")),
        (["path"], {"labels": "none"}, Columns("path")),
        (
            ["file", "breed", "fold", "path", "label", "split"],
            {"path_column": "file", "label_column": "breed", "split_column": "fold"},
            Columns("file", "breed", "fold"),
        ),
        (["path", "label", "patient"], {"group_column": "patient"}, Columns("path", "label", None, "patient")),
    ],
)
def test_columns_are_found(names, more, expected):
    assert find_columns(names, settings(**more)) == expected


@pytest.mark.parametrize(
    ("names", "more", "says"),
    [
        (
            ["image", "label"],
            {},
            "a.csv has no column path; it has 'image', 'label'. Name .* --source.path_column",
        ),
        (["path"], {}, "no column label; it has 'path'. Name the right one with --source.label_column"),
        (["path", "LABEL", "Label"], {}, "no column label"),
        ([], {"labels": "none"}, "no column path; it has none"),
        (["path", "label"], {"split_column": "fold"}, "no column fold; .* --source.split_column"),
        (["path", "label"], {"group_column": "patient"}, "no column patient; .* --source.group_column"),
        (["cat/000.png", "cat"], {}, "write these names into the first line"),
    ],
)
def test_missing_column_is_named_with_its_setting(names, more, says):
    with pytest.raises(SourceError, match=says) as refused:
        find_columns(names, settings(**more))
    assert "\n" not in refused.value.message


# --- paths of others


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("file:/my%20photos/a.jpg", ["file:/my photos/a.jpg"]),
        ("s3://bucket/100%25.jpg", ["s3://bucket/100%.jpg"]),
        ("dbfs:/K%C3%A4se.jpg", ["dbfs:/K\u00e4se.jpg"]),
        (" file:/a%20b.jpg ", ["file:/a%20b.jpg", "file:/a b.jpg"]),
        ("a.jpg ", ["a.jpg"]),
        # Without a scheme, a percent sign is a part of the name.
        ("/data/100%25.jpg", []),
        ("a%20b.jpg", []),
        ("a.jpg", []),
    ],
)
def test_other_readings_of_a_path(path, expected):
    assert other_readings(path) == expected
