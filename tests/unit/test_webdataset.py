"""WebDataset's shards: every image is an entry with its label or an error, and no input ends a task."""

import io
import json
import tarfile
import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnlib.errors import ImageError
from cnnlib.sources import webdataset
from cnnlib.sources.webdataset import (
    MAX_CLASS_NAME_CHARACTERS,
    MAX_LABEL_BYTES,
    ShardEntry,
    index_shard,
    is_shard_name,
    parse_label,
    read_shard,
    split_name,
)
from tests.unit.tars import END, LAYOUTS, Counting, gzipped, header, pack, padded, special

SHARD = pack(("a.cls", b"3"), ("a.jpg", b"image a"), ("b.jpg", b"image b"), ("b.json", b'{"label": "cat"}'))


def entries(shard: bytes, max_bytes: int = 1000, labelled: bool = True) -> list[ShardEntry]:
    """Read a shard. Its index must have the same entries, except for errors that depend on `max_bytes`."""
    read = list(read_shard(io.BytesIO(shard), "shard.tar", max_bytes, labelled=labelled))
    index = list(index_shard(io.BytesIO(shard), "shard.tar", labelled=labelled))
    assert [entry.path for entry in index] == [entry.path for entry in read]
    for indexed, entry in zip(index, read, strict=True):
        assert indexed.content is None
        if entry.code != "too_many_bytes":
            assert indexed == replace(entry, content=None)
    return read


def codes(*members, **options) -> list[tuple[str, str | None, str | None]]:
    """Return (path, class name, code) of the entries of a shard with these members."""
    return [(entry.path, entry.class_name, entry.code) for entry in entries(pack(*members), **options)]


# --- what is in order


@pytest.mark.parametrize("compress", [bytes, gzipped], ids=["plain", "gzipped"])
def test_images_have_their_bytes_and_labels(compress):
    assert entries(compress(SHARD)) == [
        ShardEntry("a.jpg", 7, "3", content=b"image a"),
        ShardEntry("b.jpg", 7, "cat", content=b"image b"),
    ]


samples = st.lists(
    st.tuples(
        st.lists(st.sampled_from(["jpg", "JPEG", "png", "left.webp"]), min_size=1, max_size=3, unique_by=str.lower),
        st.one_of(st.none(), st.integers(-5, 10**6), st.sampled_from(["cat", "a dog", "Küche"])),
        st.booleans(),
        st.booleans(),
    ),
    max_size=8,
)


@given(samples, st.sampled_from(sorted(LAYOUTS)), st.sampled_from([bytes, gzipped]), st.data())
def test_every_sample_comes_back(drawn, layout, compress, data):
    members, expected = [], []
    for number, (suffixes, label, is_json, label_first) in enumerate(drawn):
        key = f"dir.{number}/{number:06d}"
        images = [(f"{key}.{suffix}", data.draw(st.binary(min_size=1, max_size=600))) for suffix in suffixes]
        labels = []
        if label is not None and is_json:
            labels = [(f"{key}.json", json.dumps({"label": label}).encode())]
        elif label is not None:
            labels = [(f"{key}.cls", str(label).encode())]
        members += labels + images if label_first else images + labels
        name = None if label is None else str(label)
        expected += [ShardEntry(path, len(content), name, content=content) for path, content in images]
    assert entries(compress(pack(*members, layout=LAYOUTS[layout]))) == expected


def test_key_ends_at_the_first_dot_of_the_base_name():
    assert split_name("./v1.0/IMG_1.left.JPG") == ("./v1.0/IMG_1", "left.jpg")
    found = codes(("v1.0/a.left.png", b"1"), ("v1.0/a.right.png", b"2"), ("v1.0/a.cls", b"x"), ("v1.0/b.png", b"3"))
    assert found == [("v1.0/a.left.png", "x", None), ("v1.0/a.right.png", "x", None), ("v1.0/b.png", None, None)]


def test_label_holds_for_its_neighbours_alone():
    found = codes(("a.jpg", b"1"), ("b.jpg", b"2"), ("a.cls", b"x"))
    assert found == [("a.jpg", None, None), ("b.jpg", None, None), ("a.cls", None, "missing_file")]


def test_cls_counts_if_there_is_a_json_too():
    assert codes(("a.cls", b"cat"), ("a.jpg", b"1"), ("a.json", b'{"label": "dog"')) == [("a.jpg", "cat", None)]


def test_member_that_is_no_image_and_no_label_is_skipped():
    found = codes(
        special("d", tarfile.DIRTYPE),
        special("d/x.jpg", tarfile.DIRTYPE),
        special("d/f.jpg", tarfile.FIFOTYPE),
        ("README", b"text"),
        ("d/._a.jpg", b"Mac OS X"),
        ("d/a.jpg", b"1"),
        ("d/a.txt", b"a caption"),
        ("d/._a.cls", b"Mac OS X"),
        ("d/a.cls", b"cat"),
    )
    assert found == [("d/a.jpg", "cat", None)]


def test_names_met_twice_are_kept_apart():
    found = codes(("a.jpg", b"1"), ("a.cls", b"x"), ("a.jpg", b"2"), ("b.jpg", b"3"), ("a.jpg", b"4"), ("c.cls", b"z"))
    assert [path for path, _, _ in found] == ["a.jpg", "a.jpg#2", "b.jpg", "a.jpg#3", "c.cls"]
    assert [name for _, name, _ in found] == ["x", "x", None, None, None]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.tar", True), ("a.tar.gz", True), ("a.TGZ", True), ("a.tar.bz2", False), ("tar", False), ("a.gz", False)],
)
def test_shards_are_known_by_their_ending(name, expected):
    assert is_shard_name(name) is expected


# --- without labels


def test_labels_that_are_not_asked_for_are_not_looked_at():
    members = [("a.cls", b"\xff"), ("a.jpg", b"1"), ("c.json", b"{"), ("b.jpg", b"2")]
    assert codes(*members, labelled=False) == [("a.jpg", None, None), ("b.jpg", None, None)]


def test_images_without_labels_do_not_wait_for_one_another(monkeypatch):
    monkeypatch.setattr(webdataset, "MAX_KEY_BYTES", 10)
    frames = [(f"frame.{number}.jpg", b"12345678") for number in range(5)]
    assert [code for _, _, code in codes(*frames, max_bytes=8, labelled=False)] == [None] * 5


# --- what is wrong with a sample


@pytest.mark.parametrize(
    ("member", "code", "says"),
    [
        pytest.param(("a.jpg", b""), "empty_file", "no bytes", id="empty"),
        pytest.param(("a.jpg", b"1" * 1001), "too_many_bytes", "1001 bytes exceed the limit of 1000", id="too-large"),
        pytest.param(special("a.jpg", tarfile.SYMTYPE, "/etc/passwd"), "unreadable", "not followed", id="symlink"),
        pytest.param(special("a.jpg", tarfile.LNKTYPE, "b.jpg"), "unreadable", "not followed", id="hard-link"),
        pytest.param(("/etc/a.jpg", b"1"), "unreadable", "leads out of the archive", id="absolute"),
        pytest.param(("../a.jpg", b"1"), "unreadable", "leads out of the archive", id="above"),
        pytest.param(("d/../../a.jpg", b"1"), "unreadable", "leads out of the archive", id="above-within"),
    ],
)
def test_image_that_cannot_be_used_has_a_code(member, code, says):
    name = member.name if isinstance(member, tarfile.TarInfo) else member[0]
    label = (name.removesuffix("jpg") + "cls", b"cat")
    [entry] = entries(pack(member, label))
    assert (entry.path, entry.class_name, entry.code, entry.content) == (name, "cat", code, None)
    assert says in entry.message


def test_names_that_only_look_like_leading_out_are_names():
    assert codes(("a../b...jpg", b"1"), ("c:\\..\\d.jpg", b"1")) == [
        ("a../b...jpg", None, None),
        ("c:\\..\\d.jpg", None, None),
    ]


def test_label_without_an_image_is_a_missing_file():
    [entry] = entries(pack(("a.cls", b"12"), ("a.json", b"{}"), ("a.txt", b"x")))
    assert entry == ShardEntry("a.cls", 2, None, "missing_file", "it is a label without an image of the same key")


@pytest.mark.parametrize(
    ("label", "says"),
    [
        pytest.param(("a.json", b'{"label":'), "cannot be parsed", id="half-a-json"),
        pytest.param(("a.json", b"[" * 100_000), "cannot be parsed", id="deep-json"),
        pytest.param(("a.json", b'{"caption": "x"}'), "none of label, cls, class", id="json-without-label"),
        pytest.param(("a.cls", b"\xff\xfe"), "cannot be parsed", id="not-utf8"),
        pytest.param(("a.cls", b" \n"), "not a name of one line", id="blank"),
        pytest.param(("a.cls", b"1" * (MAX_LABEL_BYTES + 1)), f"more than {MAX_LABEL_BYTES} bytes", id="huge"),
        pytest.param(special("a.cls", tarfile.SYMTYPE, "/etc/hostname"), "is a link", id="link"),
    ],
)
def test_label_that_cannot_be_used_is_unknown(label, says):
    [entry] = entries(pack(("a.jpg", b"1"), label))
    assert (entry.path, entry.class_name, entry.code, entry.content) == ("a.jpg", None, "unknown_label", b"1")
    assert says in entry.message


def test_error_of_the_image_comes_first():
    assert codes(("a.jpg", b""), ("a.json", b"{")) == [("a.jpg", None, "empty_file")]


def test_labels_of_one_name_must_agree():
    assert codes(("a.jpg", b"1"), ("a.cls", b"x"), ("a.cls", b" x\n")) == [("a.jpg", "x", None)]
    assert codes(("a.jpg", b"1"), ("a.cls", b"x"), ("a.cls", b"y")) == [("a.jpg", None, "unknown_label")]


@pytest.mark.parametrize(
    ("content", "suffix", "expected"),
    [
        (b"7", "cls", "7"),
        (b" tabby cat\n", "cls", "tabby cat"),
        ("\ufeffKüche".encode(), "cls", "Küche"),
        (b"-3", "json", "-3"),
        (b"3.0", "json", "3"),
        (b'"cat"', "json", "cat"),
        (b'{"class": "a", "cls": 2, "size": [1]}', "json", "2"),
        (b'{"class": "a", "cls": 2, "label": "b"}', "json", "b"),
        ('{"label": "K\\u00fcche"}'.encode("utf-16"), "json", "Küche"),
    ],
)
def test_labels_parse(content, suffix, expected):
    assert parse_label(content, suffix) == expected


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"true",
        b"NaN",
        b"1e999",
        b"0.5",
        b"[1]",
        b'""',
        b'{"label": null}',
        b'{"label": {"name": "cat"}}',
        b'"a\\nb"',
        b'"\\ud800"',
        b'"\xed\xa0\x80"',
        b"9" * 5000,
        b'"' + b"a" * (MAX_CLASS_NAME_CHARACTERS + 1) + b'"',
    ],
)
def test_labels_that_are_no_class_are_unknown(content):
    with pytest.raises(ImageError) as caught:
        parse_label(content, "json")
    assert caught.value.code == "unknown_label"
    caught.value.message.encode()


@given(st.binary(max_size=60), st.sampled_from(["cls", "json"]))
def test_any_label_gives_one_line_of_text_or_an_image_error(content, suffix):
    try:
        name = parse_label(content, suffix)
    except ImageError as error:
        error.message.encode()
    else:
        assert name.encode().strip()
        assert len(name.splitlines()) == 1


# --- what is wrong with a shard


@pytest.mark.parametrize(
    ("shard", "code"),
    [
        (b"", "empty_file"),
        (b"<html>not found</html>" * 50, "unreadable"),
        (gzipped(b"text" * 500), "unreadable"),
        (gzipped(SHARD)[:30], "truncated"),
    ],
)
def test_file_that_is_no_shard_is_one_entry(shard, code):
    [entry] = entries(shard)
    assert (entry.path, entry.size_bytes, entry.code) == ("shard.tar", len(shard), code)


def test_cut_shard_gives_whole_images_and_one_more_entry():
    whole = entries(SHARD)
    half = SHARD[: 4 * 512 + 515]  # within image b
    *images, last = entries(half)
    assert images == whole[:1]
    assert (last.path, last.size_bytes, last.class_name, last.code) == ("shard.tar", len(half), None, "truncated")


def test_image_whose_label_was_cut_off_has_none():
    *images, last = entries(SHARD[: 6 * 512 + 100])
    assert [(image.path, image.class_name, image.code) for image in images] == [
        ("a.jpg", "3", None),
        ("b.jpg", None, None),
    ]
    assert last.code == "truncated"


def test_damage_between_samples_is_reported_after_them():
    *images, last = entries(header("a.jpg", size=1) + padded(b"1") + b"\xff" * 512 + END)
    assert [image.path for image in images] == ["a.jpg"]
    assert (last.path, last.code) == ("shard.tar", "unreadable")


@given(st.integers(0, len(SHARD) - 1), st.binary(min_size=1, max_size=6), st.sampled_from([bytes, gzipped]))
@settings(max_examples=400)
def test_damaged_shards_give_entries_that_index_and_read_agree_on(position, damage, compress):
    shard = bytearray(compress(SHARD))
    position %= len(shard)
    shard[position : position + len(damage)] = damage
    found = entries(bytes(shard))
    assert len({entry.path for entry in found}) == len(found)
    for entry in found:
        f"{entry.path}{entry.class_name}{entry.message}".encode()


# --- memory


def test_index_reads_no_image():
    file = Counting(pack(*((f"{number}.jpg", bytes(1 << 20)) for number in range(10))))
    assert [entry.size_bytes for entry in index_shard(file, "x")] == [1 << 20] * 10
    assert file.read_bytes < 30_000


@pytest.mark.parametrize("compress", [bytes, gzipped], ids=["plain", "gzipped"])
def test_shard_is_never_in_memory_as_a_whole(compress):
    file = io.BytesIO(compress(pack(*((f"{number}.jpg", bytes(1 << 20)) for number in range(40)))))
    tracemalloc.start()
    assert sum(len(entry.content) for entry in read_shard(file, "x", 2 << 20)) == 40 << 20
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 << 20


def test_image_beyond_the_limit_is_never_read():
    archive = header("a.jpg", size=1 << 40)
    tracemalloc.start()
    [entry] = read_shard(io.BytesIO(archive), "x", 1 << 30)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (entry.path, entry.code) == ("x", "truncated")
    assert peak < 1 << 20


def test_images_of_one_key_have_a_limit_together(monkeypatch):
    monkeypatch.setattr(webdataset, "MAX_KEY_BYTES", 20)
    images = [(f"a.{number}.jpg", b"12345678") for number in range(4)]
    found = codes(*images, ("b.jpg", b"1" * 8), ("b.cls", b"x"), max_bytes=8)
    assert [code for _, _, code in found] == [None, None, "too_many_bytes", "too_many_bytes", None]


def test_key_of_very_many_images_begins_anew(monkeypatch):
    monkeypatch.setattr(webdataset, "MAX_KEY_IMAGES", 2)
    found = codes(("a.cls", b"x"), *((f"a.{number}.jpg", b"1") for number in range(3)))
    assert [name for _, name, _ in found] == ["x", "x", None]
