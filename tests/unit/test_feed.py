"""The feed to tf.data: every image exactly once per epoch, on any number of workers, in the order of a seed."""

import math
import time
from collections import Counter

import numpy as np
import pytest

from cnnlib.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

from cnnlib.errors import ConfigError, ImageSetError  # noqa: E402
from cnnlib.feed import make_dataset  # noqa: E402
from cnnlib.feed.sharding import Shard, epoch_random  # noqa: E402
from cnnlib.image_set.contract import ImageSet, open_image_set  # noqa: E402
from cnnlib.sealed.frozen.images import ImageSpec  # noqa: E402
from tests.unit.feeds import (  # noqa: E402
    CLASSES,
    IMAGES,
    LABELS,
    POOL_MB,
    ROWS,
    TRAIN,
    batches_of,
    rows_of,
    write,
)
from tests.unit.image_sets import run_examples, write_image_set, write_train_split  # noqa: E402


@pytest.fixture(scope="module")
def image_set(tmp_path_factory) -> ImageSet:
    """A set of 1,000 train images in 3 files of about 7 row groups, and 60 val images."""
    written = write(tmp_path_factory.mktemp("set"), files=3, rows_per_row_group=50)
    assert written.split("train").row_groups >= 20
    return written


# --- the rows


@pytest.mark.parametrize("seed", [None, 0, 7])
@pytest.mark.parametrize("batch_size", [1, 64, 333, 5000])
def test_every_image_comes_once_an_epoch(image_set, seed, batch_size):
    with make_dataset(image_set, "train", worker_batch_size=batch_size, seed=seed, shuffle_mb=POOL_MB) as dataset:
        batches = batches_of(dataset)
    assert Counter(rows_of(batches)) == Counter(TRAIN)
    sizes = [len(batch) for batch in batches]
    assert len(sizes) == math.ceil(ROWS / batch_size)
    assert max(sizes) - min(sizes) <= 1


def test_split_is_the_one_asked_for(image_set):
    with make_dataset(image_set, "val") as dataset:
        rows = rows_of(batches_of(dataset))
    assert rows == [(image.tobytes(), label) for image, label in zip(IMAGES[ROWS:], LABELS[ROWS:], strict=True)]


def test_shapes_types_and_steps_are_known_in_advance(image_set):
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


@pytest.mark.parametrize(("split", "says"), [("tset", "split=tset is unknown"), ("test", "has no test images")])
def test_missing_split_is_an_image_set_error(image_set, split, says):
    with pytest.raises(ImageSetError, match=says), make_dataset(image_set, split):
        pass


def test_worked_example_of_make_dataset_is_true(tmp_path, monkeypatch):
    images = np.zeros((8, 28, 28, 1), np.uint8)
    write_image_set(tmp_path / "sets" / "photos", images, [0, 1] * 4, ["train"] * 8, classes=("cat", "dog"))
    monkeypatch.chdir(tmp_path)
    assert run_examples(make_dataset) == (0, 3)


# --- several workers

LAYOUTS = {
    "two files, 1,000 and 937 rows": [[1000], [937]],
    "three row groups": [[400, 150], [450]],
    "row groups of one row and of none": [[1, 0, 300], [1, 1, 1], [199]],
    "fewer rows than a step": [[3, 4]],
}


def each_worker(image_set, workers, **options):
    """Read an epoch on each worker; check that it has as many steps as its cardinality says."""
    batches = []
    for worker in range(workers):
        with make_dataset(image_set, "train", shard=Shard(worker, workers), shuffle_mb=POOL_MB, **options) as dataset:
            batches.append(batches_of(dataset))
            assert len(batches[-1]) == int(dataset.cardinality())
    return batches


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", [None, 3])
def test_workers_together_take_every_row_once(tmp_path, layout, workers, seed):
    rows = sum(map(sum, layout))
    # (rows, 1, 2, 1) uint8, the number of the row
    pixels = np.arange(rows, dtype="<u2").view(np.uint8).reshape(-1, 1, 2, 1)
    stored, labels = [image.tobytes() for image in pixels], [row % 10 for row in range(rows)]
    image_set = write_train_split(tmp_path, stored, labels, spec=ImageSpec(1, 2, 1), classes=CLASSES, row_groups=layout)
    batches = each_worker(image_set, workers, worker_batch_size=64, seed=seed)
    taken = [row for of_worker in batches for row in rows_of(of_worker)]
    assert sorted(taken) == sorted(zip(stored, labels, strict=True))
    if seed is None:
        assert taken == list(zip(stored, labels, strict=True))
    sizes = [len(batch) for of_worker in batches for batch in of_worker]
    assert len(sizes) == math.ceil(rows / 64 / workers) * workers
    # In each step all workers have equally many rows, and the last step has as many as the others.
    for of_some in (*batches, *zip(*batches, strict=True)):
        of_some_sizes = [len(batch) for batch in of_some]
        assert max(of_some_sizes) - min(of_some_sizes) <= 1


def test_workers_mix_their_own_rows_by_the_seed(image_set):
    first, again = (each_worker(image_set, 2, worker_batch_size=50, seed=3) for _ in range(2))
    assert first == again
    assert not set(rows_of(first[0])) & set(rows_of(first[1]))


def test_more_workers_than_rows_are_refused(image_set):
    with (
        pytest.raises(ConfigError, match="train.workers=61 exceeds the 60 rows"),
        make_dataset(image_set, "val", shard=Shard(0, 61)),
    ):
        pass


# --- order


def test_without_a_seed_every_epoch_has_the_published_order(image_set):
    with make_dataset(image_set, "train", worker_batch_size=64) as dataset:
        assert rows_of(batches_of(dataset)) == TRAIN
        assert rows_of(batches_of(dataset)) == TRAIN


@pytest.mark.parametrize("seed", [0, 7])
def test_same_seed_gives_the_same_batches_over_two_epochs(image_set, seed):
    def two_epochs():
        with make_dataset(image_set, "train", worker_batch_size=64, seed=seed, shuffle_mb=POOL_MB) as dataset:
            return batches_of(dataset), batches_of(dataset)

    first, second = two_epochs(), two_epochs()
    assert first == second
    assert first[0] != first[1]


def test_another_seed_gives_another_order(image_set):
    orders = []
    for seed in (0, 1, 2):
        with make_dataset(image_set, "train", seed=seed, shuffle_mb=POOL_MB) as dataset:
            orders.append(tuple(rows_of(batches_of(dataset))))
    assert len(set(orders)) == 3


def test_rows_from_the_whole_split_mix_in_a_batch(image_set):
    place = {row: number for number, row in enumerate(TRAIN)}
    with make_dataset(image_set, "train", worker_batch_size=100, seed=0, shuffle_mb=1) as dataset:
        first = batches_of(dataset)[0]
    # Each third of the split gives about a third of a batch of 100; fewer than 10 is practically impossible.
    thirds = Counter(place[row] * 3 // ROWS for row in first)
    assert min(thirds[third] for third in range(3)) >= 10


@pytest.mark.parametrize("seed", [None, 5])
def test_endless_pass_has_the_same_epochs_as_single_passes(image_set, seed):
    options = {"worker_batch_size": 64, "seed": seed, "shuffle_mb": POOL_MB}
    with make_dataset(image_set, "train", **options) as dataset:
        epochs = [batches_of(dataset) for _ in range(3)]
    with make_dataset(image_set, "train", repeat=True, **options) as dataset:
        assert batches_of(dataset, steps=48) == sum(epochs, [])


def test_next_epoch_is_prepared_before_this_one_ends(image_set, monkeypatch):
    begun = []

    def remember(seed, epoch, worker=None):
        begun.append(epoch)
        return epoch_random(seed, epoch, worker)

    monkeypatch.setattr("cnnlib.feed.dataset.epoch_random", remember)
    with make_dataset(image_set, "train", worker_batch_size=10, seed=5, repeat=True) as dataset:
        batches = dataset.as_numpy_iterator()
        for _ in range(75):
            next(batches)
        # 25 of 100 batches are not taken yet; 8 of them are already cut.
        until = time.monotonic() + 5
        while begun != [0, 1] and time.monotonic() < until:
            time.sleep(0.01)
    assert begun == [0, 1]


def test_first_epoch_continues_the_same_sequence(image_set):
    with make_dataset(image_set, "train", seed=5) as dataset:
        epochs = [batches_of(dataset) for _ in range(3)]
    with make_dataset(image_set, "train", seed=5, first_epoch=2) as dataset:
        assert batches_of(dataset) == epochs[2]


def test_two_passes_at_once_are_two_epochs(image_set):
    with make_dataset(image_set, "train", worker_batch_size=64, seed=5) as dataset:
        pairs = list(zip(dataset.as_numpy_iterator(), dataset.as_numpy_iterator(), strict=True))
        third = np.concatenate([labels for _, labels in dataset.as_numpy_iterator()])
    epochs = [np.concatenate([pair[side][1] for pair in pairs]) for side in (0, 1)]
    with make_dataset(image_set, "train", worker_batch_size=64, seed=5) as dataset:
        alone = [np.concatenate([labels for _, labels in dataset.as_numpy_iterator()]) for _ in range(3)]
    np.testing.assert_array_equal([*epochs, third], alone)
