"""The measured wait for data agrees with the wait that must have happened."""

import time

import numpy as np
import pytest

from cnnlib.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

import tensorflow as tf  # noqa: E402

from cnnlib.feed import make_dataset  # noqa: E402
from cnnlib.feed.data_wait import DataWait  # noqa: E402
from tests.unit.feeds import TRAIN, batches_of, rows_of, run_python, write  # noqa: E402

STEPS = 25


def slow_producer(seconds: float) -> tf.data.Dataset:
    return slowly(seconds, [np.int32(number) for number in range(STEPS)], tf.TensorSpec((), tf.int32))


def slowly(seconds: float, elements: list, signature: object) -> tf.data.Dataset:
    def produce():
        for element in elements:
            time.sleep(seconds)
            yield element

    return tf.data.Dataset.from_generator(produce, output_signature=signature)


def test_slow_producer_is_waited_for():
    data_wait = DataWait()
    start = time.perf_counter()
    taken = [int(number) for number in data_wait.measured(slow_producer(0.02))]
    took = time.perf_counter() - start
    assert taken == list(range(STEPS))
    # A sleep is never shorter than requested, and the wait never longer than the whole pass.
    assert 0.9 * STEPS * 0.02 <= data_wait.take() <= took


def test_wait_behind_a_buffer_is_measured_too():
    data_wait = DataWait()
    assert sum(1 for _ in data_wait.measured(slow_producer(0.02).prefetch(8))) == STEPS
    assert data_wait.take() >= 0.9 * STEPS * 0.02


def test_fast_producer_is_not_waited_for():
    data_wait = DataWait()
    start = time.perf_counter()
    for _ in data_wait.measured(tf.data.Dataset.range(STEPS).prefetch(8)):
        time.sleep(0.02)
    assert data_wait.take() <= 0.2 * (time.perf_counter() - start)


def test_work_of_the_consumer_hides_work_of_the_producer():
    data_wait = DataWait()
    start = time.perf_counter()
    for _ in data_wait.measured(slow_producer(0.01).prefetch(8)):
        time.sleep(0.04)
    assert data_wait.take() <= 0.4 * (time.perf_counter() - start)


def test_take_returns_the_wait_since_the_last_call():
    data_wait = DataWait()
    assert data_wait.take() == 0
    batches = iter(data_wait.measured(slow_producer(0.02)))
    for count in (5, 10):
        for _ in range(count):
            next(batches)
        assert 0.9 * count * 0.02 <= data_wait.take()
        assert data_wait.take() == 0


@pytest.mark.parametrize("repeat", [False, True])
def test_measured_feed_gives_the_same_rows(tmp_path, repeat):
    data_wait = DataWait()
    with make_dataset(write(tmp_path), "train", worker_batch_size=100, repeat=repeat, data_wait=data_wait) as dataset:
        assert int(dataset.cardinality()) == (-1 if repeat else 10)
        assert rows_of(batches_of(dataset, steps=10)) == TRAIN
    assert 0 < data_wait.take() < 60


def test_keras_fit_is_measured_step_by_step():
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    data_wait = DataWait()
    # The producer itself gives the pairs: TensorFlow runs a `map` that has no side effects in threads of its own, which
    # produce while the model computes, and the wait would rightly be shorter.
    ones = np.ones((2, 1), np.float32)
    batches = slowly(0.02, [(ones, ones)] * STEPS, (tf.TensorSpec((2, 1)), tf.TensorSpec((2, 1))))
    start = time.perf_counter()
    model.fit(data_wait.measured(batches.repeat()), steps_per_epoch=STEPS, epochs=2, verbose=0)
    assert 0.9 * 2 * STEPS * 0.02 <= data_wait.take() <= time.perf_counter() - start


ONE_PROCESSOR = """
import os, sys, threading
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from dataclasses import replace
from fsspec.implementations.local import LocalFileSystem
from cnnlib.quiet import import_tensorflow_quietly
import_tensorflow_quietly(in_task=True)
from cnnlib.feed import make_dataset
from cnnlib.feed.data_wait import DataWait
from cnnlib.image_set.contract import open_image_set

class StuckFileSystem(LocalFileSystem):
    cachable = False
    opened, freed = 0, threading.Event()
    def open(self, *args, **kwargs):
        StuckFileSystem.opened += 1
        if StuckFileSystem.opened > FOOTERS + 10:
            self.freed.wait()
        return super().open(*args, **kwargs)

FOOTERS = 1
# A hanging process ends here.
watchdog = threading.Timer(30, os._exit, [3])
watchdog.daemon = True
watchdog.start()
image_set = open_image_set(sys.argv[1])
image_set = replace(image_set, folder=replace(image_set.folder, fs=StuckFileSystem()))
with make_dataset(image_set, "train", worker_batch_size=8, data_wait=DataWait()) as dataset:
    for number, _ in enumerate(dataset, 1):
        print(number, flush=True)
        if number == 500 // 8:
            StuckFileSystem.freed.set()
            break
"""


@pytest.mark.full
def test_one_processor_gives_ready_batches_while_storage_hangs(tmp_path):
    # The file system opens 10 row groups of 50 rows, then no more until 62 batches of 8 were taken.
    write(tmp_path / "set", files=1, rows_per_row_group=50)
    ended = run_python(ONE_PROCESSOR, str(tmp_path / "set"))
    assert ended.stdout.split() == [str(number) for number in range(1, 63)], ended.stderr


def test_determinism_of_an_earlier_training_counts(monkeypatch):
    """TensorFlow would refuse to read its clock, and nobody can switch determinism off again."""
    from cnnlib.feed import data_wait

    monkeypatch.setattr(data_wait, "is_op_determinism_enabled", lambda: False)
    assert data_wait.DataWait()._now is not data_wait._python_clock
    monkeypatch.setattr(data_wait, "is_op_determinism_enabled", lambda: True)
    assert data_wait.DataWait()._now is data_wait._python_clock
