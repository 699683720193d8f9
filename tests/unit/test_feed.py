"""petastorm into tf.data: every image exactly once an epoch, by seed, and nothing left behind when it ends."""

import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cnnlib.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

from cnnlib.errors import FeedError, ImageSetError  # noqa: E402
from cnnlib.feed import arrow_bridge, make_dataset  # noqa: E402
from cnnlib.feed.blocks import read_split  # noqa: E402
from cnnlib.imageset import ImageSet, open_image_set  # noqa: E402
from tests.unit.image_sets import write_image_set  # noqa: E402
from tests.unit.petastorm_threads import petastorm_threads  # noqa: E402

arrow_bridge.install()

import petastorm.reader  # noqa: E402  (the bridge must be in place first)

PROJECT = Path(__file__).resolve().parents[2]
CLASSES = tuple("abcdefghij")
ROWS = 1000
VAL_ROWS = 60

# Rows of different contents, so that each can be told from all others: (rows, 4, 4, 1) uint8.
IMAGES = np.random.default_rng(0).integers(0, 256, (ROWS + VAL_ROWS, 4, 4, 1), dtype=np.uint8)
LABELS = [number % 10 for number in range(len(IMAGES))]
TRAIN = [(image.tobytes(), label) for image, label in zip(IMAGES[:ROWS], LABELS, strict=False)]


def write(path: Path, **options) -> ImageSet:
    splits = ["train"] * ROWS + ["val"] * VAL_ROWS
    return write_image_set(path, IMAGES, LABELS, splits, classes=CLASSES, **options)


@pytest.fixture(scope="module")
def image_set(tmp_path_factory) -> ImageSet:
    """1,000 train images in 3 files of 7 or so row groups, and 60 for val."""
    written = write(tmp_path_factory.mktemp("set"), files=3, rows_per_row_group=50)
    assert written.split("train").row_groups >= 20
    return written


def batches_of(dataset) -> list[list[tuple[bytes, int]]]:
    """One epoch: the rows (pixels, label) of each batch, in order."""
    return [
        [(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)]
        for images, labels in dataset.as_numpy_iterator()
    ]


def rows_of(batches) -> list[tuple[bytes, int]]:
    return [row for batch in batches for row in batch]


def within(seconds: float, work) -> None:
    """Run `work`, but wait no longer for it: what hangs fails here, not the whole suite."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="test", daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"still running after {seconds} s"
    if raised:
        raise raised[0]


# --- what comes


@pytest.mark.parametrize("seed", [None, 0, 7])
@pytest.mark.parametrize("batch_size", [1, 64, 333, 5000])
def test_every_image_comes_once_an_epoch(image_set, seed, batch_size):
    with make_dataset(
        image_set, "train", worker_batch_size=batch_size, seed=seed, shuffle_mb=200 * 16 / 2**20
    ) as dataset:
        batches = batches_of(dataset)
    assert Counter(rows_of(batches)) == Counter(TRAIN)
    sizes = [len(batch) for batch in batches]
    assert sizes == [batch_size] * (ROWS // batch_size) + [ROWS % batch_size] * bool(ROWS % batch_size)


def test_split_is_the_one_asked_for(image_set):
    with make_dataset(image_set, "val") as dataset:
        rows = rows_of(batches_of(dataset))
    assert rows == [(image.tobytes(), label) for image, label in zip(IMAGES[ROWS:], LABELS[ROWS:], strict=True)]


def test_shapes_types_and_number_of_steps_are_known_ahead(image_set):
    with make_dataset(image_set, "train", worker_batch_size=64) as dataset:
        images, labels = dataset.element_spec
        steps = int(dataset.cardinality())
    assert (tuple(images.shape), images.dtype.name) == ((None, 4, 4, 1), "uint8")
    assert (tuple(labels.shape), labels.dtype.name) == ((None,), "int32")
    assert steps == 16


def test_set_at_any_uri_is_read(tmp_path):
    write(tmp_path / "a set [1]", files=1)
    with make_dataset(open_image_set(f"file://{tmp_path}/a set [1]"), "train") as dataset:
        assert rows_of(batches_of(dataset)) == TRAIN


# --- order


def test_without_a_seed_the_published_order_stands_every_epoch(image_set):
    with make_dataset(image_set, "train", worker_batch_size=64) as dataset:
        assert rows_of(batches_of(dataset)) == TRAIN
        assert rows_of(batches_of(dataset)) == TRAIN


@pytest.mark.parametrize("seed", [0, 7])
def test_same_seed_gives_the_same_batches_over_two_epochs(image_set, seed):
    def two_epochs():
        with make_dataset(image_set, "train", worker_batch_size=64, seed=seed, shuffle_mb=200 * 16 / 2**20) as dataset:
            return batches_of(dataset), batches_of(dataset)

    first, second = two_epochs(), two_epochs()
    assert first == second
    assert first[0] != first[1]


def test_another_seed_gives_another_order(image_set):
    orders = []
    for seed in (0, 1, 2):
        with make_dataset(image_set, "train", seed=seed, shuffle_mb=200 * 16 / 2**20) as dataset:
            orders.append(tuple(rows_of(batches_of(dataset))))
    assert len(set(orders)) == 3


def test_rows_from_all_over_the_split_mix_in_a_batch(image_set):
    place = {row: number for number, row in enumerate(TRAIN)}
    with make_dataset(image_set, "train", worker_batch_size=100, seed=0, shuffle_mb=1) as dataset:
        first = batches_of(dataset)[0]
    # Of each third of the split, about a third of a batch of 100; fewer than 10 has no chance.
    thirds = Counter(place[row] * 3 // ROWS for row in first)
    assert min(thirds[third] for third in range(3)) >= 10


# --- how it ends


@pytest.mark.parametrize("seed", [None, 3])
def test_no_thread_is_left_behind(image_set, seed):
    before = petastorm_threads()
    with make_dataset(image_set, "train", seed=seed) as dataset:
        batches_of(dataset)
    assert petastorm_threads() == before


@pytest.mark.parametrize("taken", [0, 1, 3])
@pytest.mark.parametrize("seed", [None, 3])
def test_epoch_given_up_midway_ends_too(image_set, seed, taken):
    before = petastorm_threads()

    def abandon():
        for _ in range(10):
            with make_dataset(
                image_set, "train", worker_batch_size=8, seed=seed, shuffle_mb=16 * 16 / 2**20
            ) as dataset:
                iterator = iter(dataset)
                for _ in range(taken):
                    next(iterator)

    within(60, abandon)
    assert petastorm_threads() == before


def test_exception_in_the_block_ends_the_readers_and_comes_through(image_set):
    before = petastorm_threads()

    def fail():
        with make_dataset(image_set, "train", worker_batch_size=8) as dataset:
            next(iter(dataset))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        within(60, fail)
    assert petastorm_threads() == before


def test_two_passes_at_once_are_both_whole(image_set):
    with make_dataset(image_set, "train", worker_batch_size=64) as dataset:
        pairs = list(zip(dataset.as_numpy_iterator(), dataset.as_numpy_iterator(), strict=True))
    for side in (0, 1):
        labels = np.concatenate([pair[side][1] for pair in pairs])
        assert labels.tolist() == LABELS[:ROWS]


def test_blocks_closed_midway_end_the_reader(image_set):
    before = petastorm_threads()
    blocks = read_split(image_set, "train")
    images, labels = next(blocks)
    assert (images == IMAGES[: len(labels)]).all()
    within(60, blocks.close)
    assert petastorm_threads() == before


# --- nothing is lost

BUSY_EPOCHS = """
import sys, threading
from cnnlib.quiet import import_tensorflow_quietly
import_tensorflow_quietly()
from cnnlib.feed import make_dataset
from cnnlib.imageset import open_image_set

# A thread that wants the interpreter all the time, and often gets it: petastorm's take turns in every possible order.
sys.setswitchinterval(1e-5)
done = threading.Event()
def spin():
    while not done.is_set():
        pass
threading.Thread(target=spin, name="busy", daemon=True).start()
with make_dataset(open_image_set(sys.argv[1]), "train", worker_batch_size=100, seed=1, shuffle_mb=0.0016) as dataset:
    for _ in range(30):
        print(sum(len(labels) for _, labels in dataset.as_numpy_iterator()))
done.set()
"""


def test_thirty_epochs_on_a_busy_machine_are_all_whole(tmp_path):
    image_set = write(tmp_path, files=3, rows_per_row_group=100)
    # In a process of its own: petastorm's thread pool as the feed itself sets it up, and a clean exit at the end.
    ended = subprocess.run(
        [sys.executable, "-c", BUSY_EPOCHS, image_set.folder.uri],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        check=False,
        timeout=240,
    )
    assert (ended.returncode, ended.stdout.split()) == (0, [str(ROWS)] * 30), ended.stderr


@pytest.mark.parametrize("seed", [None, 3])
def test_row_groups_handed_out_late_are_not_lost(tmp_path, monkeypatch, seed):
    """The case that petastorm 0.13.1 loses, made certain: all work is handed out between its two questions."""

    class LateThreadPool(petastorm.reader.ThreadPool):
        def all_workers_done(self):
            done = super().all_workers_done()
            while not self._ventilator.completed():
                pass
            return done

    # Petastorm hands out three row groups ahead, so three can be late.
    small = write(tmp_path, files=1, rows_per_row_group=400)
    assert small.split("train").row_groups == 3
    monkeypatch.setattr(petastorm.reader, "ThreadPool", LateThreadPool)
    with make_dataset(small, "train", seed=seed) as dataset:
        assert Counter(rows_of(batches_of(dataset))) == Counter(TRAIN)


# --- what is refused


@pytest.fixture
def first_file(tmp_path) -> Path:
    """The first train file of a set of its own, to be damaged; `tmp_path` is the set."""
    image_set = write(tmp_path, files=2)
    return Path(image_set.folder.path(image_set.split("train").files[0].path))


def read_all(path: Path) -> None:
    def read():
        with make_dataset(open_image_set(str(path)), "train") as dataset:
            batches_of(dataset)

    within(60, read)


def keep_450_rows(file: Path) -> None:
    pq.write_table(pq.read_table(file).slice(0, 450), file, row_group_size=50)


def test_split_with_fewer_rows_is_a_feed_error(tmp_path, first_file):
    keep_450_rows(first_file)
    with pytest.raises(FeedError, match="gave 920 train images, its dataset.json says 1000"):
        list(read_split(open_image_set(str(tmp_path)), "train"))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        pytest.param(keep_450_rows, "gave 920 train images, its dataset.json says 1000", id="fewer-rows"),
        pytest.param(Path.unlink, "part-00000", id="missing"),
        pytest.param(lambda file: file.write_bytes(file.read_bytes()[:-100]), "Parquet", id="cut-off"),
    ],
)
def test_damaged_file_is_a_feed_error_and_ends_the_threads(tmp_path, first_file, damage, says):
    before = petastorm_threads()
    damage(first_file)
    with pytest.raises(FeedError, match=says):
        read_all(tmp_path)
    assert petastorm_threads() == before


@pytest.mark.parametrize(("split", "says"), [("tset", "split=tset is unknown"), ("test", "has no test images")])
def test_split_that_is_not_there_is_an_image_set_error(image_set, split, says):
    with pytest.raises(ImageSetError, match=says), make_dataset(image_set, split):
        pass
