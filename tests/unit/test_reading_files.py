"""Files of a source: all are listed, and each requested file comes out once, with its bytes or an error."""

import os
import tempfile
import tracemalloc

import fsspec
import pytest

from cnnlib.errors import SourceError
from cnnlib.image_set.contract import CODE, MESSAGE, SIZE_BYTES
from cnnlib.image_set.ledger import FILE
from cnnlib.image_set.writer import CONTENT
from cnnlib.storage import folder as storage
from cnnlib.storage.folder import open_folder
from pipelines.sources.files import list_files, read_files
from pipelines.sources.manifest import uri_of
from pipelines.sources.source import in_batches

LIMIT = 1_000


@pytest.fixture
def memory():
    fs = fsspec.filesystem("memory")
    yield fs
    fs.rm("/", recursive=True)


def entries(*names):
    return [{FILE: name, SIZE_BYTES: 3} for name in names]


def read(found, locate):
    return [row for batch in read_files(found, locate, LIMIT) for row in batch.to_pylist()]


def test_files_of_several_file_systems_stay_in_order(tmp_path, memory):
    for number in range(0, 300, 2):
        (tmp_path / f"{number}.jpg").write_bytes(b"local %d" % number)
        memory.pipe_file(f"/{number + 1}.jpg", b"memory %d" % (number + 1))
    local = fsspec.filesystem("file")

    def locate(entry):
        is_local = int(entry[FILE].split(".")[0]) % 2 == 0
        return (local, f"{tmp_path}/{entry[FILE]}") if is_local else (memory, f"/{entry[FILE]}")

    rows = read(entries(*(f"{number}.jpg" for number in range(300))), locate)
    assert [row[FILE] for row in rows] == [f"{number}.jpg" for number in range(300)]
    assert [row[CONTENT] for row in rows] == [b"%s %d" % ((b"local", b"memory")[n % 2], n) for n in range(300)]
    assert [row[SIZE_BYTES] for row in rows] == [len(row[CONTENT]) for row in rows]
    assert {row[CODE] for row in rows} == {None}


def test_unreadable_file_says_why_and_harms_no_other(memory):
    memory.pipe_file("/good.jpg", b"abc")
    memory.pipe_file("/most.jpg", bytes(LIMIT))
    memory.pipe_file("/grown.jpg", bytes(LIMIT + 1))
    rows = read(entries("good.jpg", "gone.jpg", "grown.jpg", "most.jpg"), lambda entry: (memory, f"/{entry[FILE]}"))
    assert [(row[FILE], row[CODE], row[CONTENT]) for row in rows] == [
        ("good.jpg", None, b"abc"),
        ("gone.jpg", "missing_file", None),
        ("grown.jpg", "too_many_bytes", None),
        ("most.jpg", None, bytes(LIMIT)),
    ]


def test_file_known_to_be_bad_is_not_read(memory):
    bad = entries("bad.jpg")[0] | {CODE: "empty_file", MESSAGE: "the file has no bytes"}

    def locate(entry):
        raise AssertionError(f"{entry} was looked for")

    (row,) = read([bad], locate)
    assert (row[CODE], row[MESSAGE], row[CONTENT]) == ("empty_file", "the file has no bytes", None)


def test_file_that_has_grown_much_is_not_read_whole(tmp_path):
    (tmp_path / "a.jpg").write_bytes(bytes(50_000_000))
    tracemalloc.start()
    (row,) = read(entries("a.jpg"), lambda entry: (fsspec.filesystem("file"), f"{tmp_path}/{entry[FILE]}"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert row[CODE] == "too_many_bytes"
    assert peak < 5_000_000


def test_batches_end_by_rows_or_by_bytes():
    assert [len(portion) for portion in in_batches(({} for _ in range(600)), lambda entry: 1)] == [256, 256, 88]
    megabytes = [20, 20, 5, 40, 1]
    divided = in_batches(({"mb": mb} for mb in megabytes), lambda entry: entry["mb"] * 2**20)
    assert [[entry["mb"] for entry in portion] for portion in divided] == [[20, 20], [5, 40], [1]]
    assert list(in_batches([], lambda entry: 1)) == []


# --- listing; of few folders, so without Spark


def listed(folder):
    return {file.name: file.size_bytes for file in list_files(None, open_folder(str(folder)))}


@pytest.fixture
def tree(tmp_path):
    """Make two images below set/train/cat, and three in folders beside the set."""
    for place, names in (("set/train/cat", "ab"), ("elsewhere/dog", "cd"), ("elsewhere/dog/old", "e")):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        for name in names:
            (tmp_path / place / f"{name}.jpg").write_bytes(name.encode() * 5)
    return tmp_path


def test_links_are_followed_at_any_depth(tree):
    (tree / "set/train/dog").symlink_to(tree / "elsewhere/dog")
    (tree / "set/val").symlink_to(tree / "elsewhere")
    (tree / "set/train/cat/f.jpg").symlink_to(tree / "elsewhere/dog/c.jpg")
    assert listed(tree / "set") == {
        "train/cat/a.jpg": 5,
        "train/cat/b.jpg": 5,
        "train/cat/f.jpg": 5,
        "train/dog/c.jpg": 5,
        "train/dog/d.jpg": 5,
        "train/dog/old/e.jpg": 5,
        "val/dog/c.jpg": 5,
        "val/dog/d.jpg": 5,
        "val/dog/old/e.jpg": 5,
    }


def test_links_to_a_folder_above_end(tree):
    (tree / "set/again").symlink_to(tree / "set")
    (tree / "set/train/cat/up").symlink_to(tree / "set/train")
    assert set(listed(tree / "set")) == {"train/cat/a.jpg", "train/cat/b.jpg"}


def test_link_to_nothing_is_a_file_that_is_missing(tree):
    (tree / "set/train/cat/z.jpg").symlink_to(tree / "nothing")
    assert listed(tree / "set")["train/cat/z.jpg"] > 0
    folder = open_folder(str(tree / "set"))
    (row,) = read(entries("train/cat/z.jpg"), lambda entry: (folder.fs, folder.path(entry[FILE])))
    assert row[CODE] == "missing_file"


def test_folder_that_cannot_be_listed_is_an_error(tree, monkeypatch):
    whole = os.scandir

    def scandir(path):
        if str(path).endswith("cat"):
            raise PermissionError(13, "Permission denied")
        return whole(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(SourceError, match=r"train/cat cannot be listed \(Permission denied\); change its rights"):
        listed(tree / "set")


def test_manifest_on_dbfs_names_files_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "DBFS_MOUNT", str(tmp_path))
    (tmp_path / "set").mkdir()
    (tmp_path / "set/a.jpg").write_bytes(b"abc")
    uri = uri_of("a.jpg", open_folder("dbfs:/set"))
    assert uri == "dbfs:/set/a.jpg"
    assert open_folder(uri).fs.cat_file(open_folder(uri).root) == b"abc"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be somebody else")
def test_link_into_a_folder_without_rights_is_refused():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        for name in ("set/dog", "secret/cat"):
            os.makedirs(f"{folder}/{name}")
        os.chmod(f"{folder}/secret", 0o700)
        os.symlink(f"{folder}/secret/cat", f"{folder}/set/cat")
        os.seteuid(65534)
        try:
            with pytest.raises(SourceError, match="cannot be listed .Permission denied.; change its rights"):
                listed(f"{folder}/set")
        finally:
            os.seteuid(0)
