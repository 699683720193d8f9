"""petastorm through the Arrow bridge: what it reads from plain Parquet, how it ends, and what stays unchanged."""

import itertools
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cnnlib.errors import FeedError
from cnnlib.feed.petastorm import arrow_bridge
from cnnlib.feed.petastorm.arrow_dataset import ParquetDataset, PartitionSet
from cnnlib.feed.petastorm.thread_pool import WholeThreadPool

arrow_bridge.install()

import petastorm.reader  # noqa: E402  (the bridge must be in place first)
from petastorm import make_batch_reader  # noqa: E402
from petastorm.predicates import in_lambda, in_set  # noqa: E402

ROWS = 120
ROWS_PER_FILE = 40
ROWS_PER_GROUP = 10


@pytest.fixture(autouse=True, scope="module")
def _whole_thread_pool():
    """petastorm's own pool now and then loses row groups; see `thread_pool`."""
    petastorm.reader.ThreadPool = WholeThreadPool


def rows(first: int, count: int) -> pa.Table:
    ids = range(first, first + count)
    columns = [list(ids), [bytes([i, 0, 255]) for i in ids], [f"row {i}" for i in ids]]
    return pa.table(columns, pa.schema({"id": pa.int64(), "image": pa.binary(), "name": pa.string()}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files of four row groups of ten rows."""
    for first in range(0, ROWS, ROWS_PER_FILE):
        path = tmp_path / f"part-{first:03}.parquet"
        pq.write_table(rows(first, ROWS_PER_FILE), path, row_group_size=ROWS_PER_GROUP)
    return tmp_path


@pytest.fixture
def partitioned(tmp_path: Path) -> Path:
    """Two years with two splits each, and ten rows in each of the four folders."""
    for index, (year, split) in enumerate(itertools.product((2024, 2025), ("test", "train"))):
        folder = tmp_path / f"year={year}" / f"split={split}"
        folder.mkdir(parents=True)
        pq.write_table(rows(index * 10, 10), folder / "part-0.parquet")
    return tmp_path


def urls(folder: Path) -> list[str]:
    return [path.as_uri() for path in sorted(folder.glob("*.parquet"))]


def read(source: str | list[str], column: str = "id", **options) -> list:
    """Read one column of all rows. With one worker, row groups come in the order of the requests."""
    options = {"workers_count": 1, "shuffle_row_groups": False} | options
    with make_batch_reader(source, **options) as reader:
        return [value for batch in reader for value in getattr(batch, column)]


def run_python(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a new interpreter."""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)


# --- reading


def test_list_of_files_gives_each_row_once_in_order(folder: Path):
    assert read(urls(folder)) == list(range(ROWS))


def test_several_workers_give_each_row_once(folder: Path):
    assert sorted(read(urls(folder), workers_count=4)) == list(range(ROWS))


def test_folder_gives_each_row_once_in_order(folder: Path):
    assert read(folder.as_uri()) == list(range(ROWS))


def test_shuffled_row_groups_repeat_with_the_seed(folder: Path):
    first, again, other = (read(urls(folder), shuffle_row_groups=True, seed=seed) for seed in (3, 3, 4))
    assert sorted(first) == list(range(ROWS))
    assert first == again
    assert first != other


@pytest.mark.parametrize("seed", [None, 7])
def test_two_shards_divide_the_rows(folder: Path, seed: int | None):
    shards = [read(urls(folder), cur_shard=shard, shard_count=2, seed=seed) for shard in (0, 1)]
    assert [len(shard) for shard in shards] == [60, 60]
    assert sorted(shards[0] + shards[1]) == list(range(ROWS))


def test_two_epochs_give_each_row_twice(folder: Path):
    assert sorted(read(urls(folder), num_epochs=2)) == sorted([*range(ROWS), *range(ROWS)])


def test_chosen_columns_are_the_only_ones(folder: Path):
    with make_batch_reader(urls(folder), schema_fields=["^id$", "^name$"]) as reader:
        assert sorted(next(reader)._fields) == ["id", "name"]


def test_binary_column_keeps_its_bytes(folder: Path):
    assert read(urls(folder), "image") == [bytes([i, 0, 255]) for i in range(ROWS)]


def test_rows_are_chosen_by_a_predicate(folder: Path):
    assert read(folder.as_uri(), predicate=in_lambda(["id"], lambda ids: ids.isin([5, 77]))) == [5, 77]


def test_partition_columns_come_with_the_rows(partitioned: Path):
    assert read(partitioned.as_uri(), "year") == [2024] * 20 + [2025] * 20
    assert read(partitioned.as_uri(), "split") == (["test"] * 10 + ["train"] * 10) * 2


def test_filters_drop_partitions(partitioned: Path):
    filters = [("year", "=", 2025), ("split", "!=", "test")]
    assert read(partitioned.as_uri(), filters=filters) == list(range(30, 40))


def test_predicate_on_the_only_partition_column(tmp_path: Path):
    for year in (2024, 2025):
        (tmp_path / f"year={year}").mkdir()
        pq.write_table(rows(year - 2024, 1), tmp_path / f"year={year}" / "part-0.parquet")
    assert read(tmp_path.as_uri(), predicate=in_set({2025}, "year")) == [1]


def test_process_pool_has_the_bridge_too(folder: Path):
    # The reader is endless and the test stops after one epoch, because this pool may detect the end too early.
    options = {"reader_pool_type": "process", "workers_count": 1, "num_epochs": None}
    with make_batch_reader(urls(folder), **options) as reader:
        batches = [next(reader).id for _ in range(ROWS // ROWS_PER_GROUP)]
    assert sorted(np.concatenate(batches)) == list(range(ROWS))


def test_process_pool_can_import_this_project(monkeypatch):
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, env: started.append((command, env)))
    arrow_bridge._call_in_bridged_process(print)
    ((command, env),) = started
    Path(command[-1]).unlink()
    search_path = env["PYTHONPATH"].split(os.pathsep)
    assert (Path(search_path[0]) / "cnnlib" / "feed" / "petastorm" / "arrow_bridge.py").is_file()


# --- how a reader ends


@pytest.mark.parametrize("batches", [0, 1, ROWS // ROWS_PER_GROUP])
def test_stop_and_join_leave_no_thread(folder: Path, batches: int):
    before = set(threading.enumerate())
    reader = make_batch_reader(urls(folder), workers_count=2, num_epochs=None)
    for _ in range(batches):
        next(reader)
    reader.stop()
    reader.join()
    assert set(threading.enumerate()) <= before


class HandsOutWhenAsked:
    """A ventilator that hands out its last item just before it answers `completed`."""

    def __init__(self, pool: WholeThreadPool) -> None:
        self.pool = pool

    def completed(self) -> bool:
        self.pool._ventilated_items_by_worker[0] = 1
        return True


def test_end_is_not_announced_before_the_last_item_is_counted():
    pool = WholeThreadPool(1)
    pool._ventilator = HandsOutWhenAsked(pool)
    assert not pool.all_workers_done()


def test_stopped_pool_does_not_wait_for_open_items():
    pool = WholeThreadPool(1)
    pool._ventilated_items_by_worker[0] = 1
    pool.stop()
    assert pool.all_workers_done()


# --- the dataset classes


@pytest.mark.parametrize(
    ("keys", "values"), [(["7", "08"], [7, 8]), (["7", "x"], ["7", "x"]), (["9" * 20], ["9" * 20])]
)
def test_partition_values_are_integers_where_all_are(keys: list[str], values: list):
    assert PartitionSet("key", keys).dictionary.to_pylist() == values


def test_only_data_files_are_pieces(folder: Path):
    for name in ("_SUCCESS", ".part-000.parquet.crc", "_temporary/0/part.parquet"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    dataset = ParquetDataset(str(folder))
    assert [Path(piece.path).name for piece in dataset.pieces] == [
        "part-000.parquet", "part-040.parquet", "part-080.parquet",
    ]  # fmt: skip


def test_summary_files_are_read(folder: Path):
    footers: list[pq.FileMetaData] = []
    pq.write_table(rows(0, 40), folder / "part-000.parquet", row_group_size=10, metadata_collector=footers)
    footers[0].set_file_path("part-000.parquet")
    pq.write_metadata(rows(0, 0).schema.with_metadata({"key": "value"}), folder / "_common_metadata")
    pq.write_metadata(rows(0, 0).schema, folder / "_metadata", metadata_collector=footers)
    dataset = ParquetDataset(str(folder))
    assert dataset.common_metadata.metadata[b"key"] == b"value"
    assert dataset.metadata.num_row_groups == 4
    assert len(dataset.pieces) == 3


def test_piece_reads_the_same_after_pickling_and_closes_its_file(partitioned: Path):
    dataset = ParquetDataset(str(partitioned))
    opened = []

    def open_and_remember(path: str):
        opened.append(dataset.fs.open(path))
        return opened[-1]

    piece = dataset.pieces[2]
    copy = pickle.loads(pickle.dumps(piece))
    watched = type(piece)(copy.path, open_and_remember, 0, copy.partition_keys)
    assert watched.read(partitions=dataset.partitions) == piece.read(partitions=dataset.partitions)
    assert watched.get_metadata().num_rows == 10
    assert [file.closed for file in opened] == [True, True]


def test_pyarrow_filesystem_is_accepted(folder: Path):
    dataset = ParquetDataset([str(folder / "part-040.parquet")], filesystem=pa.fs.LocalFileSystem())
    assert dataset.pieces[0].read(columns=["id"])["id"].to_pylist() == list(range(40, 80))


def test_missing_file_is_named(tmp_path: Path):
    with pytest.raises(FeedError, match="absent.parquet is not a file"):
        ParquetDataset([str(tmp_path / "absent.parquet")])


def test_folder_that_is_not_a_partition_is_named(folder: Path):
    (folder / "other").mkdir()
    (folder / "part-000.parquet").rename(folder / "other" / "part-000.parquet")
    with pytest.raises(FeedError, match="'other', which does not read as column=value"):
        ParquetDataset(str(folder))


def test_files_of_different_partition_columns_are_refused(partitioned: Path):
    pq.write_table(rows(0, 1), partitioned / "part-0.parquet")
    with pytest.raises(FeedError, match="different partition columns"):
        ParquetDataset(str(partitioned))


def test_unknown_filter_operator_is_named(partitioned: Path):
    with pytest.raises(FeedError, match="'like' in the filter on 'split'"):
        ParquetDataset(str(partitioned), filters=[("split", "like", "t%")])


# --- what the bridge leaves unchanged, and its errors


def test_pyarrow_and_numpy_stay_unchanged():
    done = run_python(
        """
import sys
from types import ModuleType
import numpy, pyarrow, pyarrow.parquet
from cnnlib.feed.petastorm import arrow_bridge

watched = (numpy, pyarrow, pyarrow.parquet)
gone = {"pyarrow.filesystem", "pyarrow.hdfs"}
gone_before = gone & set(sys.modules)  # empty, except that pyarrow 14 still has them
before = [{name: getattr(module, name) for name in dir(module)} for module in watched]
arrow_bridge.install()
assert before == [{name: getattr(module, name) for name in dir(module)} for module in watched]

import petastorm.reader
for module, old in zip(watched, before):
    for name in dir(module):
        # The first import of a submodule sets its name in the package, with or without the bridge.
        own = f"{module.__name__}.{name}"
        assert name in old and getattr(module, name) is old[name] or sys.modules[own].__file__, own
assert gone & set(sys.modules) == gone_before
assert petastorm.reader.pq is not pyarrow.parquet
"""
    )
    assert done.returncode == 0, done.stderr


def test_tested_petastorm_needs_no_warning():
    assert arrow_bridge.version_warning("0.13.1") is None


def test_untested_petastorm_gives_a_warning():
    assert arrow_bridge.version_warning("0.14.0") == (
        "the Arrow bridge was tested with petastorm 0.13.1, not with 0.14.0; "
        "if reading fails, install petastorm==0.13.1"
    )


@pytest.mark.parametrize(
    ("circumstance", "message"),
    [
        ("metadata.version = lambda name: '0.14.0'", "UserWarning: the Arrow bridge was tested"),
        # With an empty search path no package is found.
        ("sys.path[:] = []", "FeedError: petastorm is not installed"),
        ("sys.modules['petastorm.cache'] = sys", "FeedError: petastorm.cache was imported before"),
    ],
)
def test_install_says_what_is_wrong(circumstance: str, message: str):
    done = run_python(
        f"""
import sys
from importlib import metadata
from cnnlib.feed.petastorm import arrow_bridge
{circumstance}
arrow_bridge.install()
arrow_bridge.install()
"""
    )
    assert done.stderr.count(message) == 1
