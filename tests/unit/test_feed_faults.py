"""When storage fails, the feed soon raises an error of one line that names the file."""

import gc
import time
import weakref
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cnnlib.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

from cnnlib.errors import FeedError  # noqa: E402
from cnnlib.feed import make_dataset  # noqa: E402
from cnnlib.feed.blocks import read_split  # noqa: E402
from cnnlib.image_set.contract import ImageSet  # noqa: E402
from tests.unit.feeds import StuckFileSystem, batches_of, within, write  # noqa: E402

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


@pytest.fixture(scope="module")
def image_set(tmp_path_factory) -> ImageSet:
    """A set of 1,000 train images in 3 files of about 7 row groups, and 60 val images."""
    return write(tmp_path_factory.mktemp("set"), files=3, rows_per_row_group=50)


# --- storage that does not answer


@pytest.fixture
def stuck(image_set):
    """(set on a StuckFileSystem, that file system); it gets stuck when its event is set."""
    fs = StuckFileSystem()
    yield replace(image_set, folder=replace(image_set.folder, fs=fs)), fs
    fs.freed.set()


@pytest.mark.parametrize("seed", [None, 3])
def test_storage_that_stops_answering_is_an_error_with_the_file(stuck, seed):
    image_set, fs = stuck

    def read():
        with make_dataset(image_set, "train", worker_batch_size=8, seed=seed, timeout_s=0.5) as dataset:
            batches_of(dataset)
            fs.stuck.set()
            for _ in range(3):
                batches_of(dataset)

    start = time.monotonic()
    with pytest.raises(FeedError) as raised:
        within(60, read)
    assert time.monotonic() - start < 10
    assert str(raised.value).startswith("no data came for data.timeout_s=0.5 s while reading row group ")
    assert ".parquet" in str(raised.value)


def test_error_names_the_file_that_does_not_answer(stuck):
    image_set, fs = stuck
    fs.names = image_set.split("train").files[-1].path

    def read():
        with make_dataset(image_set, "train", worker_batch_size=8, timeout_s=0.5) as dataset:
            fs.stuck.set()
            batches_of(dataset)

    with pytest.raises(FeedError, match=f"while reading row group 0 of .*{fs.names}; check the storage of that file"):
        within(60, read)


def test_stuck_footer_is_an_error_with_the_file(stuck):
    image_set, fs = stuck
    fs.names = image_set.split("train").files[1].path
    fs.stuck.set()
    with (
        pytest.raises(FeedError, match=f"0.5 s while reading the footer of .*{fs.names}"),
        make_dataset(image_set, "train", timeout_s=0.5),
    ):
        pass


def test_leaving_the_block_does_not_wait_for_a_stuck_file(stuck):
    image_set, fs = stuck

    def leave():
        with make_dataset(image_set, "train", worker_batch_size=8) as dataset:
            fs.stuck.set()
            iterator = iter(dataset)
            fs.stuck.wait(0.2)
            del iterator

    within(20, leave)


@pytest.fixture
def without_collection():
    """Without the garbage collector, only objects without references are freed."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("without_collection")
def test_iterator_is_gone_with_the_error_that_ended_it(stuck):
    """An iterator that lives until Python exits can block the exit forever: its threads may be in Python code then."""
    image_set, fs = stuck
    iterators = []

    def take_all(dataset):
        iterator = iter(dataset)
        iterators.append(weakref.ref(iterator))
        for _ in iterator:
            pass

    def read():
        with make_dataset(image_set, "train", worker_batch_size=8, timeout_s=0.2) as dataset:
            fs.stuck.set()
            take_all(dataset)

    with pytest.raises(FeedError, match="no data came"):
        read()
    assert iterators[0]() is None


# --- files that differ from dataset.json, or from their footers


def keep_450_rows(file: Path) -> None:
    pq.write_table(pq.read_table(file).slice(0, 450), file, row_group_size=50)


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def overwrite_pages(file: Path) -> None:
    """Zero the first half of the data; the footer stays unchanged."""
    content = bytearray(file.read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    file.write_bytes(content)


def put_larger_images(file: Path) -> None:
    table = pq.read_table(file)
    larger = table.column("image").combine_chunks().to_pylist()
    larger[0] += b"!"
    pq.write_table(table.set_column(2, "image", [larger]), file, row_group_size=50)


def merge_row_groups(file: Path) -> None:
    pq.write_table(pq.read_table(file), file, row_group_size=265)


def open_feed(image_set: ImageSet) -> None:
    with make_dataset(image_set, "train"):
        pass


def first_block(image_set: ImageSet) -> None:
    next(read_split(image_set, "train"))


@pytest.fixture
def damaged(tmp_path) -> tuple[ImageSet, Path]:
    """A new set and its first train file, which the test damages."""
    image_set = write(tmp_path, files=2)
    return image_set, Path(image_set.folder.path(image_set.split("train").files[0].path))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        pytest.param(keep_450_rows, r"has 450 rows, but the dataset.json of .* says 530", id="fewer-rows"),
        pytest.param(Path.unlink, "No such file", id="missing"),
        pytest.param(cut_off, "Parquet", id="cut-off"),
    ],
)
@pytest.mark.parametrize("read", [open_feed, first_block])
def test_file_that_differs_from_dataset_json_is_a_feed_error(damaged, capfd, read, damage, says):
    image_set, file = damaged
    damage(file)
    with pytest.raises(FeedError, match=says) as raised:
        read(image_set)
    assert str(raised.value).startswith(str(file))
    assert "\n" not in str(raised.value)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(Path.unlink, "cannot be read: .*No such file", id="missing"),
        pytest.param(cut_off, "cannot be read: .*Parquet", id="cut-off"),
        pytest.param(overwrite_pages, "cannot be read: ", id="pages"),
        pytest.param(
            merge_row_groups,
            "has 265 rows, but its footer said 50; ingest the set again|row group .* cannot be read",
            id="row-groups",
        ),
        pytest.param(put_larger_images, "has images that are not 16 bytes long", id="image-size"),
    ],
)
@pytest.mark.parametrize("seed", [None, 3])
def test_file_that_changes_after_its_footer_is_a_feed_error(damaged, capfd, seed, change, says):
    image_set, file = damaged

    def read():
        with make_dataset(image_set, "train", seed=seed) as dataset:
            change(file)
            batches_of(dataset)

    with pytest.raises(FeedError, match=says) as raised:
        within(60, read)
    assert f"of {file} " in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "Traceback" not in capfd.readouterr().err


def test_fault_during_keras_fit_is_a_feed_error(damaged):
    keras = pytest.importorskip("keras")
    image_set, file = damaged
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    def fit():
        with make_dataset(image_set, "train", worker_batch_size=100, seed=0, repeat=True) as dataset:
            model.fit(dataset, steps_per_epoch=10, verbose=0)
            file.unlink()
            model.fit(dataset, steps_per_epoch=10, epochs=5, verbose=0)

    with pytest.raises(FeedError, match=f"of {file} cannot be read: "):
        within(60, fit)
