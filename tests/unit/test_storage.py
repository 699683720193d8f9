"""Folders at any URI, and how a job publishes a whole folder or nothing."""

import json
import re
import threading
import uuid
from collections.abc import Callable

import fsspec
import pytest

from cnnlib.errors import ConfigError, OutputExistsError
from cnnlib.storage import folder as storage
from cnnlib.storage.folder import (
    Folder,
    check_output_is_free,
    commit,
    make_writable,
    new_run_id,
    open_folder,
    part_name,
    remove_own_files,
    remove_unpublished,
    try_writing,
    write_atomically,
    writing_run,
)
from pipelines.score.new_files import _relative_name

COMMIT = "dataset.json"
PART = part_name(new_run_id(), 3, 0)
OTHER_PART = part_name(new_run_id(), 3, 0)

# Files that sparkcnn did not write: a note, Spark's own parts, an index of parts, a backup with a similar name.
FOREIGN = [
    "notes.txt",
    "train/cat.parquet",
    "part-00000-6c0d1c3e-09a7-4b7a-8f0e-3f6d6a1f3c55-c000.snappy.parquet",
    "train/part-00000-6c0d1c3e-09a7-4b7a-8f0e-3f6d6a1f3c55-c000.snappy.parquet",
    "part-list.json",
    "dataset.json.backup.json",
]


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path) -> Folder:
    if request.param == "local":
        return open_folder(str(tmp_path / "set"))
    return open_folder(f"memory://{uuid.uuid4().hex}/set")


def put(folder: Folder, *names: str) -> None:
    for name in names:
        path = folder.path(name)
        folder.fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        folder.fs.pipe_file(path, b"content")


# --- opening


def test_local_path_file_uri_and_relative_path_are_one_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = str(tmp_path / "a" / "set")
    folders = [open_folder(uri) for uri in (path, f"{path}/", f"file://{path}", "a/set", "./a/set")]
    assert {(folder.uri, folder.root) for folder in folders} == {(path, path)}


def test_path_through_the_parent_is_the_plain_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Spark gives the paths of files below it in the plain form, and the classes of a source are parts of these paths.
    for uri in ("../set", f"{tmp_path}/../set", f"{tmp_path.parent}//set"):
        assert open_folder(uri).uri == str(tmp_path.parent / "set")


def test_relative_folder_stays_where_it_was_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = open_folder("set")
    monkeypatch.chdir("/")
    commit(folder, COMMIT, {"a": 1}, keep=set())
    assert json.loads((tmp_path / "set" / COMMIT).read_text()) == {"a": 1}


def test_local_file_has_a_file_url(tmp_path):
    assert open_folder(str(tmp_path)).url("train/a.parquet") == f"file://{tmp_path}/train/a.parquet"


def test_folder_of_another_file_system_keeps_its_uri():
    folder = open_folder("memory://bucket/set/")
    assert folder.uri == "memory://bucket/set"
    assert folder.url("train/a.parquet") == "memory:///bucket/set/train/a.parquet"


def test_opening_makes_nothing(tmp_path):
    assert open_folder(str(tmp_path / "set")).files() == []
    assert list(tmp_path.iterdir()) == []


def test_folder_with_special_characters_is_one_folder(tmp_path):
    folder = open_folder(str(tmp_path / "photos [1] #2 50% é"))
    put(folder, "train/a.parquet")
    assert folder.files() == ["train/a.parquet"]
    assert fsspec.open(folder.url("train/a.parquet")).open().read() == b"content"


@pytest.mark.parametrize("uri", ["nosuchscheme://bucket/set", "s4://bucket"])
def test_unknown_scheme_is_a_config_error(uri):
    with pytest.raises(ConfigError, match=re.escape(uri)):
        open_folder(uri)


# --- reading


def test_read_json_gives_the_object(folder):
    put(folder, "a")
    folder.fs.pipe_file(folder.path(COMMIT), b'{"rows": 3}')
    assert folder.read_json(COMMIT) == {"rows": 3}


def test_read_json_of_a_missing_file_or_folder_is_none(folder):
    assert folder.read_json(COMMIT) is None
    put(folder, "other.json")
    assert folder.read_json(COMMIT) is None


def test_read_json_below_a_file_is_none(tmp_path):
    (tmp_path / "file").write_text("")
    assert open_folder(str(tmp_path / "file")).read_json(COMMIT) is None


def test_files_are_relative_and_sorted(folder):
    put(folder, "val/b.parquet", "a.txt", "train/x/c")
    assert folder.files() == ["a.txt", "train/x/c", "val/b.parquet"]


# --- refusing


def test_absent_and_empty_folders_are_free(tmp_path):
    check_output_is_free(open_folder(str(tmp_path / "absent")), COMMIT, overwrite=False)
    check_output_is_free(open_folder(str(tmp_path)), COMMIT, overwrite=False)


def test_files_of_a_dead_run_do_not_occupy_the_output(folder):
    put(folder, f"train/{PART}", f"rejects/{PART}", f"{COMMIT}.{new_run_id()}.tmp")
    check_output_is_free(folder, COMMIT, overwrite=False)


def test_published_set_is_refused_unless_it_may_be_replaced(folder):
    commit(folder, COMMIT, {}, keep=set())
    with pytest.raises(OutputExistsError, match="pass --output.overwrite true"):
        check_output_is_free(folder, COMMIT, overwrite=False)
    check_output_is_free(folder, COMMIT, overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_file_is_never_written_over(folder, name, overwrite):
    put(folder, f"train/{PART}", name)
    with pytest.raises(OutputExistsError, match=re.escape(name)):
        check_output_is_free(folder, COMMIT, overwrite=overwrite)


def test_set_of_another_kind_is_foreign(folder):
    commit(folder, "summary.json", {}, keep=set())
    with pytest.raises(OutputExistsError, match="summary.json"):
        check_output_is_free(folder, COMMIT, overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_path_of_a_file_is_refused(tmp_path, overwrite):
    (tmp_path / "set").write_text("precious")
    with pytest.raises(ConfigError, match="is a file; name a folder"):
        check_output_is_free(open_folder(str(tmp_path / "set")), COMMIT, overwrite=overwrite)


# --- committing


def test_commit_writes_the_content(folder):
    content = {"classes": ["é", "b"], "counts": {"found": 3}}
    commit(folder, COMMIT, content, keep=set())
    assert folder.read_json(COMMIT) == content
    assert folder.files() == [COMMIT]


def test_commit_removes_our_stale_files_and_keeps_the_named(folder):
    stale = [f"train/{OTHER_PART}", f"val/{OTHER_PART}", f"{COMMIT}.{new_run_id()}.tmp"]
    put(folder, f"train/{PART}", *stale)
    commit(folder, COMMIT, {}, keep={f"train/{PART}"})
    assert folder.files() == [COMMIT, f"train/{PART}"]


def test_commit_keeps_foreign_files(folder):
    put(folder, *FOREIGN)
    commit(folder, COMMIT, {}, keep=set())
    assert folder.files() == sorted([*FOREIGN, COMMIT])


def test_remove_own_files_removes_no_other_files(folder):
    put(folder, f"train/{PART}", f"train/{OTHER_PART}", *FOREIGN)
    remove_own_files(folder, [f"train/{PART}", *FOREIGN], COMMIT)
    assert folder.files() == sorted([f"train/{OTHER_PART}", *FOREIGN])


def test_failed_commit_leaves_the_old_set(folder):
    put(folder, f"train/{PART}")
    commit(folder, COMMIT, {"run": 1}, keep={f"train/{PART}"})
    with pytest.raises(TypeError):
        commit(folder, COMMIT, {"run": object()}, keep=set())
    assert folder.read_json(COMMIT) == {"run": 1}
    assert folder.files() == [COMMIT, f"train/{PART}"]


def test_reader_never_sees_a_broken_or_missing_commit(tmp_path):
    folder = open_folder(str(tmp_path / "set"))
    filler = ["x" * 1000] * 100
    commit(folder, COMMIT, {"run": 0, "filler": filler}, keep=set())
    done, seen, faults = threading.Event(), [], []

    def read() -> None:
        while not done.is_set():
            try:
                content = folder.read_json(COMMIT)
                assert content is not None
                assert content["filler"] == filler
                seen.append(content["run"])
            except Exception as error:
                faults.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for run in range(1, 201):
        commit(folder, COMMIT, {"run": run, "filler": filler}, keep=set())
    done.set()
    reader.join()
    assert faults == []
    assert seen == sorted(seen)
    assert len(set(seen)) > 1


def test_part_names_of_two_attempts_or_runs_differ():
    names = {part_name(new_run_id(), task, attempt) for task in (0, 1) for attempt in (0, 1) for _ in range(50)}
    assert len(names) == 200


def test_folder_that_can_be_written_is_left_as_it_was(tmp_path):
    folder = open_folder(str(tmp_path / "new"))
    make_writable(folder, "dataset.json")
    assert (tmp_path / "new").is_dir()
    assert folder.files() == []


def test_probe_of_a_dead_process_does_not_occupy_the_output(tmp_path, monkeypatch):
    folder = open_folder(str(tmp_path / "new"))
    monkeypatch.setattr(type(folder.fs), "rm_file", lambda *_: None)
    make_writable(folder, "dataset.json")
    assert len(folder.files()) == 1
    check_output_is_free(folder, "dataset.json", overwrite=False)


@pytest.mark.parametrize("name", ["a#b", "a?b"])
def test_folder_that_petastorm_could_not_read_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="has a # or a \\?"):
        make_writable(open_folder(str(tmp_path / name)), "dataset.json")


@pytest.mark.parametrize("uri", ["dbfs:/FileStore/set", "dbfs:///FileStore/set/"])
def test_dbfs_uri_opens_the_mount_of_databricks(tmp_path, monkeypatch, uri):
    monkeypatch.setattr(storage, "DBFS_MOUNT", str(tmp_path))
    folder = open_folder(uri)
    write_atomically(folder, COMMIT, "{}")
    assert (tmp_path / "FileStore" / "set" / COMMIT).read_text() == "{}"
    assert folder.uri == "dbfs:/FileStore/set"  # the form that Spark takes


@pytest.mark.parametrize("uri", ["dbfs:/Volumes/main/lake/photos", "dbfs:///Volumes/main/lake/photos/"])
def test_volume_of_unity_catalog_is_a_folder_of_the_machine(uri):
    folder = open_folder(uri)
    assert (folder.uri, folder.root) == ("/Volumes/main/lake/photos", "/Volumes/main/lake/photos")


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("/data/new", "file:/data/new/cat/1.jpg"),
        ("dbfs:/new", "dbfs:/new/cat/1.jpg"),
        ("dbfs:/Volumes/main/new", "dbfs:/Volumes/main/new/cat/1.jpg"),
        ("memory://bucket/new", "memory://bucket/new/cat/1.jpg"),
    ],
)
def test_new_file_has_its_name_in_the_folder(tmp_path, monkeypatch, uri, found):
    monkeypatch.setattr(storage, "DBFS_MOUNT", str(tmp_path))
    assert _relative_name(open_folder(uri), found) == "cat/1.jpg"


def test_dbfs_elsewhere_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "DBFS_MOUNT", str(tmp_path / "not-there"))
    with pytest.raises(ConfigError, match="dbfs:/x cannot be opened: this machine has no .*not-there"):
        open_folder("dbfs:/x")


@pytest.mark.parametrize("uri", ["hdfs:/x", "s3a:/bucket/x"])
def test_scheme_with_one_slash_is_refused(uri):
    with pytest.raises(ConfigError, match=f"write {uri.replace(':/', '://')}"):
        open_folder(uri)


def test_commit_refuses_a_missing_file(tmp_path):
    folder = open_folder(str(tmp_path))
    with pytest.raises(OutputExistsError, match="lacks train/part-00000-0a-1.parquet"):
        commit(folder, "dataset.json", {}, {"train/part-00000-0a-1.parquet"})
    assert folder.files() == []


def test_run_that_failed_after_its_commit_keeps_its_files(tmp_path):
    folder = open_folder(str(tmp_path))
    for name in ("part-00000-0a-1.parquet", "part-00000-0b-1.parquet"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "dataset.json").write_text('{"files": ["part-00000-0a-1.parquet"]}')
    remove_unpublished(folder, "dataset.json", "0a")
    assert "part-00000-0a-1.parquet" in folder.files()
    remove_unpublished(folder, "dataset.json", "0b")
    assert folder.files() == ["dataset.json", "part-00000-0a-1.parquet"]


# --- trying


def test_trying_leaves_no_folder_behind(tmp_path):
    with try_writing(open_folder(f"{tmp_path}/a/b/c"), "summary.json"):
        assert (tmp_path / "a" / "b" / "c").is_dir()
    assert list(tmp_path.iterdir()) == []


def test_trying_keeps_what_was_there(tmp_path):
    (tmp_path / "a").mkdir()
    with try_writing(open_folder(f"{tmp_path}/a/b"), "summary.json"):
        (tmp_path / "a" / "b" / "of another").write_text("")
    assert (tmp_path / "a" / "b" / "of another").exists()


def test_trying_below_a_file_is_refused(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"), try_writing(open_folder(f"{tmp_path}/a/b"), "x.json"):
        pass
    assert (tmp_path / "a").read_text() == ""


# --- a run that fails


def fail(folder: Folder, run_id: str, act: Callable[[], object], error: BaseException) -> None:
    with writing_run(folder, "dataset.json", run_id):
        act()
        raise error


def test_failed_run_leaves_no_empty_folder(tmp_path):
    folder = open_folder(f"{tmp_path}/new/set")
    with pytest.raises(ValueError, match="a fault"):
        fail(folder, "0f", (tmp_path / "new" / "set" / "train").mkdir, ValueError("a fault"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "old" / "rejects").mkdir(parents=True)
    (tmp_path / "old" / "rejects" / "part").touch()
    with pytest.raises(KeyboardInterrupt):
        fail(open_folder(f"{tmp_path}/old"), "0f", (tmp_path / "old" / "train").mkdir, KeyboardInterrupt())
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["rejects"]


def test_run_that_lost_to_another_says_so(tmp_path):
    folder = open_folder(str(tmp_path))

    def publish(run_id: str) -> None:
        (tmp_path / "dataset.json").write_text(f'{{"files": ["part-00000-{run_id}-0.parquet"]}}')

    with pytest.raises(OutputExistsError, match="another job has published .*; this job published nothing") as lost:
        fail(folder, "0f", lambda: publish("1a"), FileNotFoundError("part-00000-0f-0.parquet"))
    assert "\n" not in lost.value.message
    # A fault after the run's own commit is a fault.
    with pytest.raises(FileNotFoundError):
        fail(folder, "0f", lambda: publish("0f"), FileNotFoundError("report.html"))
    with pytest.raises(FileNotFoundError):
        fail(folder, "2b", lambda: None, FileNotFoundError("any"))
