"""How the feed ends: with nothing lost and nothing left behind, whenever it is left."""

import time

import numpy as np
import pytest

from cnnlib.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

from cnnlib.feed import make_dataset  # noqa: E402
from cnnlib.feed.blocks import read_split  # noqa: E402
from cnnlib.feed.petastorm.thread_pool import ThreadPool  # noqa: E402
from cnnlib.image_set.contract import ImageSet  # noqa: E402
from cnnlib.sealed.frozen.images import ImageSpec  # noqa: E402
from tests.unit.feeds import CLASSES, IMAGES, ROWS, TRAIN, batches_of, run_python, within, write  # noqa: E402
from tests.unit.image_sets import write_train_split  # noqa: E402
from tests.unit.petastorm_threads import petastorm_threads  # noqa: E402

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


@pytest.fixture(scope="module")
def image_set(tmp_path_factory) -> ImageSet:
    """1,000 train images in 3 files of 7 or so row groups, and 60 for val."""
    return write(tmp_path_factory.mktemp("set"), files=3, rows_per_row_group=50)


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
from cnnlib.image_set.contract import open_image_set

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
    ended = run_python(BUSY_EPOCHS, image_set.folder.uri)
    assert (ended.returncode, ended.stdout.split()) == (0, [str(ROWS)] * 30), ended.stderr


def test_row_groups_handed_out_late_are_not_lost(tmp_path, monkeypatch):
    """The case that petastorm 0.13.1 loses, made certain: all work is handed out between its two questions."""
    all_done = ThreadPool.all_workers_done

    def answer_late(self):
        done = all_done(self)
        while not self._ventilator.completed():
            pass
        return done

    # The feed hands out five row groups ahead, so three can be late.
    small = write(tmp_path, files=1, rows_per_row_group=400)
    assert small.split("train").row_groups == 3
    monkeypatch.setattr(ThreadPool, "all_workers_done", answer_late)
    labels = [label for _, labels in read_split(small, "train") for label in labels]
    assert labels == [label for _, label in TRAIN]


# --- nothing is left behind


@pytest.mark.parametrize("seed", [None, 3])
def test_passes_given_up_midway_leave_no_reader_open(image_set, seed):
    # A small pool: most of the split is still to be read when the second batch is there.
    with make_dataset(image_set, "train", worker_batch_size=8, seed=seed, shuffle_mb=16 * 16 / 2**20) as dataset:
        for _ in range(10):
            batches_of(dataset, steps=2)
        # One reader has two threads. tf.data lets go of a pass when it pleases.
        until = time.monotonic() + 5
        while len(petastorm_threads()) > 2 and time.monotonic() < until:
            time.sleep(0.01)
        assert len(petastorm_threads()) <= 2


def test_passes_that_overlap_leave_one_reader_open_each(image_set):
    with make_dataset(image_set, "train", worker_batch_size=8, seed=3, shuffle_mb=16 * 16 / 2**20) as dataset:
        for _ in range(6):
            assert sum(1 for _ in zip(dataset, dataset, strict=True)) == 125
        assert len(petastorm_threads()) <= 2 * 2


def test_pass_that_goes_on_after_the_end_gets_an_error(image_set):
    with make_dataset(image_set, "train", worker_batch_size=8) as dataset:
        going_on = dataset.as_numpy_iterator()
        next(going_on)
    with pytest.raises(Exception, match="the feed"):
        within(60, lambda: list(going_on))
    with pytest.raises(Exception, match="the feed is closed"):
        within(60, lambda: list(dataset))


FIFTY_EPOCHS = """
import os, sys, threading
from cnnlib.quiet import import_tensorflow_quietly
import_tensorflow_quietly()
from cnnlib.feed import make_dataset
from cnnlib.image_set.contract import open_image_set

EPOCHS, BATCH_SIZE = 50, 100
image_set = open_image_set(sys.argv[1])
steps = -(-image_set.split("train").rows // BATCH_SIZE)

def resident_mb():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

def python_threads():
    # Threads of TensorFlow's that ever ran a line of Python count as dummies from then on.
    return [thread.name for thread in threading.enumerate() if not isinstance(thread, threading._DummyThread)]

def feed(**options):
    return make_dataset(image_set, "train", worker_batch_size=BATCH_SIZE, seed=1, shuffle_mb=1, **options)

def pass_after_pass():
    with feed() as dataset:
        for _ in range(EPOCHS):
            yield sum(len(labels) for _, labels in dataset)

def one_pass():
    with feed(repeat=True) as dataset:
        batches = iter(dataset)
        for _ in range(EPOCHS):
            yield sum(len(next(batches)[1]) for _ in range(steps))

for epochs in (pass_after_pass, one_pass):
    resident, threads = [], []
    for rows in epochs():
        assert rows == image_set.split("train").rows, rows
        resident.append(resident_mb())
        threads.append(len(os.listdir("/proc/self/task")))
    assert python_threads() == ["MainThread"], python_threads()
    print(len(resident), resident[-1] - resident[4], threads[-1] - threads[4])
"""


def test_fifty_epochs_leave_no_thread_and_hardly_grow_in_memory(tmp_path):
    # 3.4 MB of images: an epoch that was kept would be seen.
    stored = list(map(np.ndarray.tobytes, np.random.default_rng(0).integers(0, 256, (4500, 784), dtype=np.uint8)))
    labels = [row % 10 for row in range(4500)]
    write_train_split(
        tmp_path, stored, labels, spec=ImageSpec(28, 28, 1), classes=CLASSES, row_groups=[[500] * 5, [500] * 4]
    )
    ended = run_python(FIFTY_EPOCHS, str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    for line in ended.stdout.splitlines():
        epochs, grown_mb, more_threads = map(float, line.split())
        assert epochs == 50
        # At most 1 MB an epoch.
        assert grown_mb <= 45
        # TensorFlow's own come and go.
        assert more_threads <= 4
    assert len(ended.stdout.splitlines()) == 2
