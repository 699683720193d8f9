"""Manifests of CSV and JSON as other tools write them: what is certain is read, all else is one line."""

import codecs
import json

import pytest

from cnnlib.errors import SourceError
from cnnlib.sources.manifest_text import Entries, parse_manifest

ROWS = [{"path": "cat/a.png", "label": "cat"}, {"path": "dog/b, c.png", "label": "dog"}]
EXPECTED = Entries(("path", "label"), ROWS)


def csv(text: str, encoding: str = "utf-8", **more) -> Entries:
    return parse_manifest(text.encode(encoding), "m.csv", "csv", **more)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('path,label\ncat/a.png,cat\n"dog/b, c.png",dog\n', id="plain"),
        pytest.param('path,label\r\ncat/a.png,cat\r\n"dog/b, c.png",dog\r\n', id="windows-lines"),
        pytest.param('path,label\rcat/a.png,cat\r"dog/b, c.png",dog', id="old-mac-lines"),
        pytest.param('path, label\ncat/a.png, cat\n"dog/b, c.png", dog\n', id="blanks-after-commas"),
        pytest.param(' path , label \n  cat/a.png,  cat\n "dog/b, c.png", dog\n\n\n', id="blanks-and-empty-lines"),
        pytest.param("path;label\ncat/a.png;cat\ndog/b, c.png;dog\n", id="semicolons"),
        pytest.param("path\tlabel\ncat/a.png\tcat\ndog/b, c.png\tdog\n", id="tabs"),
        pytest.param("path|label\ncat/a.png|cat\ndog/b, c.png|dog\n", id="bars"),
        pytest.param('"path","label"\n"cat/a.png","cat"\n"dog/b, c.png","dog"\n', id="quotes"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_csv_of_other_makers_is_read(text, encoding):
    assert csv(text, encoding) == EXPECTED


def test_quotes_may_hold_quotes_and_lines():
    assert csv('path,label\n"a ""b"".png","two\nlines"\n').rows == [{"path": 'a "b".png', "label": "two\nlines"}]


def test_column_of_paths_alone_is_read():
    assert csv("path\na, b.png\n".replace(", ", " ")).rows == [{"path": "a b.png"}]


def test_letters_of_a_named_encoding_are_read():
    content = "path,label\na.png,K\u00fcse\n".encode("cp1252")
    assert parse_manifest(content, "m.csv", "csv", "cp1252").rows == [{"path": "a.png", "label": "K\u00fcse"}]
    with pytest.raises(SourceError, match=r"m.csv is not utf-8 text: line 2 has the byte 0xfc in .*--source.encoding"):
        parse_manifest(content, "m.csv", "csv")
    with pytest.raises(SourceError, match="source.encoding=klingon is no encoding that Python knows"):
        parse_manifest(content, "m.csv", "csv", "klingon")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("path,label\na.png,cat\nb.png\n", "line 3 has 1 values, but the first line has 2 names; it is 'b.png'"),
        ("path,label\na.png,big, cat\n", "line 2 has 3 values, but the first line has 2 names"),
        ("path,label,Label\na.png,cat,cat\n", "has the column label twice in its first line, 'path,label,Label'"),
        ('path,label\n"a.png,cat\n', "is damaged at line .*; check its quotes"),
    ],
)
def test_odd_csv_is_quoted(text, says):
    with pytest.raises(SourceError, match=says) as refused:
        csv(text)
    assert "\n" not in refused.value.message


def test_empty_csv_has_no_columns():
    assert csv("") == csv("\n\n") == Entries((), [])


def json_of(text: str) -> Entries:
    return parse_manifest(text.encode(), "m.json", "jsonl")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("\n".join(map(json.dumps, ROWS)), id="lines"),
        pytest.param("\r\n\r\n".join(map(json.dumps, ROWS)) + "\r\n", id="windows-lines"),
        pytest.param(json.dumps(ROWS), id="array"),
        pytest.param(json.dumps(ROWS, indent=2), id="pretty-array"),
        pytest.param("\n".join(json.dumps(row, indent=4) for row in ROWS), id="pretty-objects"),
        pytest.param("[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n", id="array-of-lines"),
    ],
)
def test_json_of_other_makers_is_read(text):
    assert json_of(text) == EXPECTED
    assert parse_manifest(codecs.BOM_UTF8 + text.encode(), "m.json", "jsonl") == EXPECTED


def test_single_entry_is_an_entry():
    assert json_of('{"path": "a.png", "label": "cat"}').rows == [{"path": "a.png", "label": "cat"}]


def test_later_entries_may_have_more_columns():
    assert json_of('{"path": "a"}\n{"path": "b", "split": "test"}').columns == ("path", "split")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"path": "a.png"}\n{"path": "b', r"""cannot be parsed from line 2 on, '{"path": "b': .*; is it cut\?"""),
        ('[{"path": "a.png"},', "cannot be parsed from line 1 on"),
        ('{"path": "a.png"}\n["b.png"]', r"""has '\["b.png"\]' where an object with path and label is expected"""),
        ('{"images": [{"path": "a.png"}]}', "is one object with the keys 'images'; write one object per image"),
        ('{"images": [], "categories": {}}', "is one object with the keys 'images, categories'"),
        ("7 8", "has '7' where an object"),
    ],
)
def test_odd_json_is_quoted(text, says):
    with pytest.raises(SourceError, match=says) as refused:
        json_of(text)
    assert "\n" not in refused.value.message
