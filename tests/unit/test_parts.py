"""Part files: row groups have the chosen size, counts are true, and a failed or empty writer leaves no file."""

import uuid

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnlib.storage.folder import open_folder
from cnnlib.storage.parts import PartFile, PartWriter

SCHEMA = pa.schema([("id", pa.int64()), ("image", pa.binary())])


def rows(first: int, count: int) -> pa.RecordBatch:
    ids = range(first, first + count)
    return pa.RecordBatch.from_pydict({"id": list(ids), "image": [str(i).encode() for i in ids]}, schema=SCHEMA)


def batches(sizes: list[int]) -> list[pa.RecordBatch]:
    return [rows(sum(sizes[:index]), size) for index, size in enumerate(sizes)]


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    return open_folder(str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}")


@given(
    sizes=st.lists(st.integers(0, 12), max_size=8),
    rows_per_row_group=st.integers(1, 10),
)
def test_row_groups_are_exact_and_the_count_is_true(tmp_path_factory, sizes, rows_per_row_group):
    folder = open_folder(str(tmp_path_factory.mktemp("parts")))
    with PartWriter(folder, "train/a.parquet", SCHEMA, rows_per_row_group) as writer:
        for batch in batches(sizes):
            writer.write(batch)
        file = writer.close()
    if not sum(sizes):
        assert file is None
        assert folder.files() == []
        return
    written = pq.ParquetFile(folder.path("train/a.parquet"))
    groups = [written.metadata.row_group(i).num_rows for i in range(written.num_row_groups)]
    whole, rest = divmod(sum(sizes), rows_per_row_group)
    assert groups == [rows_per_row_group] * whole + [rest] * bool(rest)
    size = folder.fs.size(folder.path("train/a.parquet"))
    assert file == PartFile("train/a.parquet", sum(sizes), size, len(groups))
    assert written.read()["id"].to_pylist() == list(range(sum(sizes)))


def test_columns_and_types_are_the_schemas(folder):
    with PartWriter(folder, "a.parquet", SCHEMA, 2) as writer:
        writer.write(rows(0, 3))
        writer.close()
    with folder.fs.open(folder.path("a.parquet")) as file:
        table = pq.read_table(file)
    assert table.schema == SCHEMA
    assert table.to_pylist() == rows(0, 3).to_pylist()


@pytest.mark.parametrize("written", [0, 1, 5], ids=["nothing-written", "rows-waiting", "row-groups-written"])
def test_exception_leaves_no_file(folder, written):
    def fail():
        with PartWriter(folder, "train/a.parquet", SCHEMA, 2) as writer:
            writer.write(rows(0, written))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert folder.files() == []


def test_exception_after_closing_leaves_no_file(folder):
    # A task closes its files one by one, and a later one may fail.
    def fail():
        with PartWriter(folder, "train/a.parquet", SCHEMA, 2) as writer:
            writer.write(rows(0, 5))
            writer.close()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert folder.files() == []


def test_exception_in_one_leaves_the_others_files(folder):
    with PartWriter(folder, "a.parquet", SCHEMA, 2) as writer:
        writer.write(rows(0, 3))
        writer.close()

    def fail():
        with PartWriter(folder, "b.parquet", SCHEMA, 2) as writer:
            writer.write(rows(0, 3))
            writer.write(pa.RecordBatch.from_pydict({"other": [1, 2]}))

    with pytest.raises(pa.ArrowInvalid):
        fail()
    assert folder.files() == ["a.parquet"]
