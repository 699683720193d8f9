"""How the feed ends: no row is lost and no thread stays behind, at whatever moment it is closed."""

import json
import time
from pathlib import Path
from typing import Any

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
    """A set of 1,000 train images in 3 files of about 7 row groups, and 60 val images."""
    return write(tmp_path_factory.mktemp("set"), files=3, rows_per_row_group=50)


START = """
import json, os, sys, threading
from cnnlib.quiet import import_tensorflow_quietly
import_tensorflow_quietly(in_task=True)
from cnnlib.feed import make_dataset
from cnnlib.image_set.contract import open_image_set

def report(name, value):
    print(json.dumps([name, value]), flush=True)
"""

# Importing TensorFlow takes seconds, so one new process serves both tests of many epochs.
MANY_EPOCHS = """
# --- thirty epochs on a busy machine
# A thread that always wants the interpreter, and often gets it, so petastorm's threads run in every possible order.
switch_interval = sys.getswitchinterval()
sys.setswitchinterval(1e-5)
done = threading.Event()
def spin():
    while not done.is_set():
        pass
busy = threading.Thread(target=spin, name="busy", daemon=True)
busy.start()
with make_dataset(open_image_set(sys.argv[1]), "train", worker_batch_size=100, seed=1, shuffle_mb=0.0016) as dataset:
    rows = [sum(len(labels) for _, labels in dataset.as_numpy_iterator()) for _ in range(30)]
done.set()
busy.join()
sys.setswitchinterval(switch_interval)
report("rows of busy epochs", rows)

# --- fifty epochs
EPOCHS, BATCH_SIZE = 50, 100
image_set = open_image_set(sys.argv[2])
steps = -(-image_set.split("train").rows // BATCH_SIZE)

def resident_mb():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

def python_threads():
    # A thread of TensorFlow that has run a line of Python counts as a dummy thread from then on.
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

for kind, epochs in (("pass after pass", pass_after_pass), ("one pass", one_pass)):
    resident, threads = [], []
    for rows in epochs():
        assert rows == image_set.split("train").rows, rows
        resident.append(resident_mb())
        threads.append(len(os.listdir("/proc/self/task")))
    assert python_threads() == ["MainThread"], python_threads()
    report(kind, [len(resident), resident[-1] - resident[4], threads[-1] - threads[4]])
"""


# The thread that waits for the file is still there when the process ends.
STUCK_FILE = """
image_set = open_image_set(sys.argv[1])
file = image_set.folder.path(image_set.split("train").files[0].path)
report("file", file)
try:
    with make_dataset(image_set, "train", timeout_s=0.5) as dataset:
        os.remove(file)
        os.mkfifo(file)
        list(dataset)
except Exception as error:
    report("stuck file", f"{type(error).__name__} {error}")
"""


def reports_of(program: str, *folders: Path) -> dict[str, Any]:
    """Run a program in a new process. Return its reports by name, its exit status and its errors."""
    ended = run_python(START + program, *map(str, folders))
    reports = dict(map(json.loads, ended.stdout.splitlines()))
    return reports | {"exit status": ended.returncode, "errors": ended.stderr}


@pytest.fixture(scope="module")
def many_epochs(tmp_path_factory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("fresh")
    write(folder / "small", files=3, rows_per_row_group=100)
    # 3.4 MB of images: an epoch that stayed in memory would show.
    stored = list(map(np.ndarray.tobytes, np.random.default_rng(0).integers(0, 256, (4500, 784), dtype=np.uint8)))
    labels = [row % 10 for row in range(4500)]
    write_train_split(
        folder / "large", stored, labels, spec=ImageSpec(28, 28, 1), classes=CLASSES, row_groups=[[500] * 5, [500] * 4]
    )
    return reports_of(MANY_EPOCHS, folder / "small", folder / "large")


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


def test_exception_in_the_block_ends_the_readers_and_propagates(image_set):
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


@pytest.mark.full
def test_thirty_epochs_on_a_busy_machine_are_all_whole(many_epochs):
    assert many_epochs.get("rows of busy epochs") == [ROWS] * 30, many_epochs["errors"]


def test_row_groups_handed_out_late_are_not_lost(tmp_path, monkeypatch):
    """petastorm 0.13.1 always loses rows here: all work is handed out between its two questions."""
    all_done = ThreadPool.all_workers_done

    def answer_late(self):
        done = all_done(self)
        while not self._ventilator.completed():
            pass
        return done

    # The feed hands out five row groups in advance, so all three are handed out late.
    small = write(tmp_path, files=1, rows_per_row_group=400)
    assert small.split("train").row_groups == 3
    monkeypatch.setattr(ThreadPool, "all_workers_done", answer_late)
    labels = [label for _, labels in read_split(small, "train") for label in labels]
    assert labels == [label for _, label in TRAIN]


# --- nothing is left behind


@pytest.mark.parametrize("seed", [None, 3])
def test_passes_given_up_midway_leave_no_reader_open(image_set, seed):
    # The pool is small, so most of the split is unread when the second batch arrives.
    with make_dataset(image_set, "train", worker_batch_size=8, seed=seed, shuffle_mb=16 * 16 / 2**20) as dataset:
        for _ in range(10):
            batches_of(dataset, steps=2)
        # One reader has two threads. tf.data drops a pass at a time of its own choice.
        until = time.monotonic() + 5
        while len(petastorm_threads()) > 2 and time.monotonic() < until:
            time.sleep(0.01)
        assert len(petastorm_threads()) <= 2


def test_passes_that_overlap_leave_one_reader_open_each(image_set):
    with make_dataset(image_set, "train", worker_batch_size=8, seed=3, shuffle_mb=16 * 16 / 2**20) as dataset:
        for _ in range(6):
            assert sum(1 for _ in zip(dataset, dataset, strict=True)) == 125
        assert len(petastorm_threads()) <= 2 * 2


def test_pass_that_continues_after_the_end_gets_an_error(image_set):
    with make_dataset(image_set, "train", worker_batch_size=8) as dataset:
        going_on = dataset.as_numpy_iterator()
        next(going_on)
    with pytest.raises(Exception, match="the feed"):
        within(60, lambda: list(going_on))
    with pytest.raises(Exception, match="the feed is closed"):
        within(60, lambda: list(dataset))


@pytest.mark.full
def test_fifty_epochs_keep_no_thread_and_little_memory(many_epochs):
    for kind in ("pass after pass", "one pass"):
        assert kind in many_epochs, many_epochs["errors"]
        epochs, grown_mb, more_threads = many_epochs[kind]
        assert epochs == 50
        # At most 1 MB per epoch.
        assert grown_mb <= 45
        # TensorFlow's own threads come and go.
        assert more_threads <= 4


@pytest.mark.full
def test_process_exits_while_a_thread_waits_for_a_file(tmp_path):
    write(tmp_path / "set", files=2)
    reports = reports_of(STUCK_FILE, tmp_path / "set")
    assert reports["exit status"] == 0, reports["errors"]
    assert reports["stuck file"] == (
        "FeedError no data came for data.timeout_s=0.5 s while reading row group 0 of "
        f"{reports['file']}; check the storage of that file, or raise data.timeout_s"
    )
