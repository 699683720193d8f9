"""Tar archives: members that Python's own writer wrote come back, and malformed archives do no harm."""

import io
import tarfile
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnlib.errors import ImageError
from cnnlib.sources.tar import MAX_EXTENDED_HEADER_BYTES, MAX_NAME_BYTES, Member, read_members
from tests.unit.tars import END, LAYOUTS, Counting, gzipped, header, pack, padded, pax, special

ARCHIVE = pack(("a.jpg", b"1" * 700), ("b/ü.jpg", b""), ("c.jpg", b"3" * 512))
CONTENTS = [("a.jpg", b"1" * 700), ("b/ü.jpg", b""), ("c.jpg", b"3" * 512)]


def read(archive: bytes, wanted: bool = True) -> tuple[list[tuple[Member, bytes | None]], ImageError | None]:
    """Return all members, and the error after them or None."""
    members = []
    try:
        for found in read_members(io.BytesIO(archive), lambda member: wanted):
            members.append(found)
    except ImageError as error:
        return members, error
    return members, None


def contents(archive: bytes) -> list[tuple[str, bytes | None]]:
    """Return the names and contents of a correct archive."""
    members, error = read(archive)
    assert error is None
    return [(member.name, content) for member, content in members]


def code_of(archive: bytes) -> str | None:
    error = read(archive)[1]
    return error and error.code


names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=150).filter(
    lambda name: not name.endswith("/")
)
files = st.lists(st.tuples(names, st.binary(max_size=1500)), max_size=5)


@given(files, st.sampled_from(["gnu", "pax"]), st.sampled_from([bytes, gzipped]))
def test_every_file_comes_back(packed, layout, compress):
    assert contents(compress(pack(*packed, layout=LAYOUTS[layout]))) == packed


@pytest.mark.parametrize("layout", LAYOUTS)
def test_long_names_come_back(layout):
    name = "/".join(["folder" * 5] * 5) + "/" + "é" * 20 + ".jpg"
    assert contents(pack((name, b"x"), ("b", b"y"), layout=LAYOUTS[layout])) == [(name, b"x"), ("b", b"y")]


def test_names_that_are_no_utf8_show_their_bytes():
    info = tarfile.TarInfo("caf\udce9.jpg")
    for layout in LAYOUTS.values():
        assert contents(pack(info, layout=layout)) == [("caf\\xe9.jpg", b"")]


def test_size_in_a_pax_header_counts():
    archive = pax(("size", "5"), ("path", "b.jpg"), ("comment", "x=y")) + header("a.jpg") + padded(b"hello") + END
    assert contents(archive) == [("b.jpg", b"hello")]


def test_pax_header_holds_for_one_member_and_a_global_one_for_none():
    everywhere = header("g", tarfile.XGLTYPE, 16) + padded(b"16 path=all.jpg\n")
    archive = everywhere + pax(("path", "b.jpg")) + header("a.jpg") + header("c.jpg") + END
    assert contents(archive) == [("b.jpg", b""), ("c.jpg", b"")]


def test_archives_put_together_are_read_to_the_end():
    assert contents(ARCHIVE + ARCHIVE) == CONTENTS * 2
    assert contents(gzipped(ARCHIVE) + gzipped(ARCHIVE)) == CONTENTS * 2


def test_archive_without_members_is_in_order():
    assert contents(pack()) == []


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (tarfile.SYMTYPE, "link"),
        (tarfile.LNKTYPE, "link"),
        (tarfile.DIRTYPE, "other"),
        (tarfile.FIFOTYPE, "other"),
        (tarfile.CHRTYPE, "other"),
        (tarfile.BLKTYPE, "other"),
        (tarfile.CONTTYPE, "file"),
        (b"Z", "file"),
    ],
)
def test_kinds(kind, expected):
    members, error = read(pack(special("a.jpg", kind, "/etc/passwd"), ("b", b"x")))
    assert error is None
    assert [member for member, _ in members] == [Member("a.jpg", 0, expected), Member("b", 1, "file")]


def test_sparse_files_are_skipped_and_never_unpacked():
    # Old GNU: the map of holes continues in the block after the header.
    old = bytearray(header("old.jpg", tarfile.GNUTYPE_SPARSE, 512))
    old[482] = 1
    old[148:156] = b"%06o\0 " % (sum(old[:148]) + sum(old[156:]) + 8 * 32)
    new = pax(("GNU.sparse.major", "1"), ("GNU.sparse.name", "new.jpg"), ("GNU.sparse.realsize", str(1 << 50)))
    archive = bytes(old) + bytes(512) + b"1" * 512 + new + header("x", size=512) + b"2" * 512 + header("b") + END
    members, error = read(archive)
    assert error is None
    assert [member for member, _ in members] == [
        Member("old.jpg", 512, "sparse"),
        Member("new.jpg", 512, "sparse"),
        Member("b", 0, "file"),
    ]


# --- what is cut short or damaged


@pytest.mark.parametrize("wanted", [True, False], ids=["read", "skipped"])
@pytest.mark.parametrize("compress", [bytes, gzipped], ids=["plain", "gzipped"])
def test_every_cut_gives_the_whole_members_and_an_error(compress, wanted):
    archive = compress(ARCHIVE)
    whole = read(archive, wanted)[0]
    for length in range(1, len(archive) - 1):
        if compress is bytes and archive[length - 1 :].count(0) == len(archive) - length + 1:
            break  # all members and a byte of the end mark are there
        members, error = read(archive[:length], wanted)
        assert members == whole[: len(members)]
        assert error is not None
        assert error.code == ("unreadable" if length < (2 if compress is gzipped else 512) else "truncated")


@given(st.integers(0, len(ARCHIVE) - 1), st.binary(min_size=1, max_size=8), st.sampled_from([bytes, gzipped]))
@settings(max_examples=400)
def test_damaged_bytes_give_members_or_an_image_error(position, damage, compress):
    packed = bytearray(compress(ARCHIVE))
    position %= len(packed)
    packed[position : position + len(damage)] = damage
    read(bytes(packed))


@given(st.binary(max_size=2000))
def test_any_bytes_give_an_image_error(content):
    if content.strip(b"\0"):
        assert code_of(content) in ("unreadable", "truncated")


@pytest.mark.parametrize(
    ("archive", "code"),
    [
        pytest.param(b"", "empty_file", id="empty"),
        pytest.param(gzipped(b""), "empty_file", id="empty-gzip"),
        pytest.param(b"<html>not found</html>" * 100, "unreadable", id="text"),
        pytest.param(b"PK\3\4" + bytes(2000), "unreadable", id="zip"),
        pytest.param(gzipped(b"text" * 500), "unreadable", id="gzipped-text"),
        pytest.param(gzipped(ARCHIVE) + b"rubbish", "unreadable", id="rubbish-after-a-gzip"),
    ],
)
def test_file_that_is_no_archive_has_a_code(archive, code):
    _, error = read(archive)
    assert error is not None
    assert error.code == code
    assert "\n" not in error.message


@pytest.mark.parametrize(
    ("rest", "code"),
    [
        pytest.param(b"", "truncated", id="no-end-mark"),
        pytest.param(b"rubbish" * 100, "unreadable", id="rubbish"),
        pytest.param(END + b"rubbish" * 100, "unreadable", id="rubbish-after-the-end-mark"),
        pytest.param(header("a", size=-512) + END, "unreadable", id="negative-size"),
        pytest.param(header("a", size=1 << 61) + END, "truncated", id="huge-size"),
        pytest.param(header("a", size=1 << 80) + END, "unreadable", id="size-beyond-any-file"),
        pytest.param(header("a", tarfile.XHDTYPE, 1 << 30) + END, "unreadable", id="huge-pax-header"),
        pytest.param(header("a", tarfile.GNUTYPE_LONGNAME, 1 << 30) + END, "unreadable", id="huge-long-name"),
        pytest.param(header("a", tarfile.XGLTYPE, 1 << 30) + END, "unreadable", id="huge-global-header"),
        pytest.param(pax(("path", "a" * (MAX_NAME_BYTES + 1))) + header("a") + END, "unreadable", id="long-name"),
        pytest.param(pax(("size", "-1")) + header("a") + END, "unreadable", id="negative-pax-size"),
        pytest.param(pax(("size", "9" * 5000)) + header("a") + END, "unreadable", id="pax-size-of-many-digits"),
        pytest.param(header("a", tarfile.XHDTYPE, 4) + padded(b"0 a=") + END, "unreadable", id="pax-length-zero"),
        pytest.param(header("a", tarfile.XHDTYPE, 8) + padded(b"99 a=b\n\n") + END, "unreadable", id="pax-too-long"),
        pytest.param(header("a", tarfile.XHDTYPE, 6) + padded(b"6 abc\n") + END, "unreadable", id="pax-without-equals"),
    ],
)
def test_damage_after_a_member_leaves_that_member(rest, code):
    members, error = read(header("first.jpg", size=1) + padded(b"1") + rest)
    assert members == [(Member("first.jpg", 1, "file"), b"1")]
    assert error is not None
    assert error.code == code
    assert "\n" not in error.message


# --- what takes time or memory elsewhere


@pytest.mark.parametrize(
    "archive",
    [
        pytest.param(header("a", tarfile.XHDTYPE, 1 << 20) + b"1" * (1 << 20), id="digits"),
        pytest.param(header("a", tarfile.XHDTYPE, 1 << 20) + b"2 " * (1 << 19), id="records-without-end"),
        pytest.param(header("a", tarfile.XHDTYPE, 5 << 17) + b"5 a=\n" * (1 << 17), id="many-small-records"),
        pytest.param((header("a", tarfile.XHDTYPE, 7) + padded(b"7 a=bc\n")) * 20_000 + header("b") + END, id="chain"),
        pytest.param((header("a", tarfile.GNUTYPE_LONGNAME, 1) + padded(b"a")) * 20_000 + END, id="chain-of-names"),
        pytest.param(bytes(32 << 20), id="zeros"),
    ],
)
def test_bombs_take_no_time(archive):
    assert len(archive) > MAX_EXTENDED_HEADER_BYTES // 2
    start = time.perf_counter()
    read(gzipped(archive))
    assert time.perf_counter() - start < 5


def test_unwanted_member_is_not_read():
    file = Counting(pack(*((f"{number}.jpg", bytes(1 << 20)) for number in range(10))))
    assert [member.size for member, _ in read_members(file, lambda member: False)] == [1 << 20] * 10
    assert file.read_bytes < 30_000
