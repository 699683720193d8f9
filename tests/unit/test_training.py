"""Training: it learns, repeats itself, stops in time, and leaves whole checkpoints and true numbers."""

import time
from pathlib import Path

import numpy as np
import pytest

from cnnlib.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

import keras  # noqa: E402
from keras.ops import convert_to_numpy as to_numpy  # noqa: E402

from cnnlib.config import TrainSettings  # noqa: E402
from cnnlib.errors import ConfigError, ImageSetError  # noqa: E402
from cnnlib.training.callbacks import EPOCH_SECONDS, IMAGES_PER_SECOND, EpochReport, StepReport  # noqa: E402
from cnnlib.training.checkpoints import MODEL_FILE, EpochCheckpoint, best_epoch, checkpoint_folder  # noqa: E402
from cnnlib.training.fit import fit_model  # noqa: E402
from tests.unit.image_sets import write_image_set  # noqa: E402
from tests.unit.petastorm_threads import petastorm_threads  # noqa: E402

CLASSES = ("above", "below", "left")
TRAIN_ROWS, VAL_ROWS = 240, 60


def striped_images(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise, with a bright band where the label says: (rows, 16, 16, 1) uint8 and (rows,)."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 120, (rows, 16, 16, 1), dtype=np.uint8)
    labels = random.integers(0, 3, rows)
    images[labels == 0, :5] += 130
    images[labels == 1, -5:] += 130
    images[labels == 2, :, :5] += 130
    return images, labels


@pytest.fixture(scope="module")
def image_set(tmp_path_factory):
    images, labels = striped_images(TRAIN_ROWS + VAL_ROWS)
    splits = ["train"] * TRAIN_ROWS + ["val"] * VAL_ROWS
    return write_image_set(tmp_path_factory.mktemp("set"), images, labels, splits, classes=CLASSES)


def settings(image_set, **train) -> TrainSettings:
    values = {"epochs": 2, "worker_batch_size": 32, "shuffle_rows": 100} | train
    learning_rate = values.pop("learning_rate", 1e-3)
    return TrainSettings(data={"path": image_set.folder.uri}, train=values, optimizer={"learning_rate": learning_rate})


# --- the best epoch


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.5], 1),
        ([0.90, 0.97, 0.95], 2),
        ([0.90, 0.97, 0.95, 0.97], 2),
        ([0.97, 0.97], 1),
        ([0.1, 0.2, 0.3], 3),
        ([0.3, 0.2, 0.1], 1),
        ([0.0, 0.0, 0.0], 1),
    ],
)
def test_best_epoch_is_the_first_of_the_highest(values, expected):
    assert best_epoch(values) == expected


# --- checkpoints


def small_model(weight: float) -> keras.Model:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[weight]])])
    return model


def weight_in(folder: Path) -> float:
    return float(keras.saving.load_model(folder / MODEL_FILE).get_weights()[0][0, 0])


def test_checkpoint_is_whole_and_final_when_it_is_published(tmp_path):
    published = []

    def publish(epoch: int, folder: Path) -> None:
        # Whoever is told of a checkpoint can load it, from where it will stay.
        published.append((epoch, folder, weight_in(folder), sorted(path.name for path in tmp_path.iterdir())))

    checkpoint = EpochCheckpoint(tmp_path, publish)
    for epoch, weight in enumerate((0.25, 0.5)):
        checkpoint.set_model(small_model(weight))
        checkpoint.on_epoch_end(epoch, {})
    assert published == [
        (1, tmp_path / "epoch-0001", 0.25, ["epoch-0001"]),
        (2, tmp_path / "epoch-0002", 0.5, ["epoch-0001", "epoch-0002"]),
    ]


def test_checkpoint_that_cannot_be_saved_is_not_there(tmp_path):
    class Unsaved:
        def save(self, path: Path) -> None:
            path.write_bytes(b"half a model")
            raise OSError("no space left on device")

    published = []
    checkpoint = EpochCheckpoint(tmp_path, lambda epoch, folder: published.append(epoch))
    checkpoint.set_model(Unsaved())
    with pytest.raises(OSError, match="no space"):
        checkpoint.on_epoch_end(0, {})
    assert published == []
    assert not checkpoint_folder(tmp_path, 1).exists()


# --- reports


def test_epoch_report_tells_metrics_seconds_and_images_a_second():
    told = []
    report = EpochReport(1000, lambda epoch, metrics: told.append((epoch, metrics)))
    started = time.monotonic()
    report.on_epoch_begin(4)
    report.on_test_begin()
    training_ended = time.monotonic()
    report.on_epoch_end(4, {"loss": np.float32(0.5), "val_accuracy": 0.75})
    ended = time.monotonic()
    ((epoch, metrics),) = told
    assert (epoch, metrics["loss"], metrics["val_accuracy"]) == (5, 0.5, 0.75)
    assert type(metrics["loss"]) is float
    assert 0 < metrics[EPOCH_SECONDS] <= ended - started
    # Training took no longer than up to here, so it was at least this fast.
    assert metrics[IMAGES_PER_SECOND] >= 1000 / (training_ended - started)


def test_step_report_counts_over_all_epochs():
    told = []
    report = StepReport(lambda done, total, note: told.append((done, total, note)))
    report.set_params({"epochs": 3, "steps": 5})
    report.on_epoch_begin(0)
    report.on_train_batch_end(0, {"loss": 0.5})
    report.on_epoch_begin(2)
    report.on_train_batch_end(4, {"loss": 0.25, "accuracy": 0.9})
    assert told == [
        (1, 15, "steps, epoch 1/3: loss 0.5000"),
        (15, 15, "steps, epoch 3/3: loss 0.2500, accuracy 0.9000"),
    ]


# --- fit


@pytest.fixture(scope="module")
def trained(image_set, tmp_path_factory):
    """(model, history, reports of epochs, steps told, checkpoints' folder) of 3 epochs."""
    folder = tmp_path_factory.mktemp("checkpoints")
    epochs, steps = [], []
    callbacks = [
        EpochReport(TRAIN_ROWS, lambda epoch, metrics: epochs.append((epoch, metrics))),
        StepReport(lambda done, total, note: steps.append((done, total))),
        EpochCheckpoint(folder, lambda epoch, path: None),
    ]
    model, history = fit_model(image_set, settings(image_set, epochs=3, patience=0), callbacks)
    return model, history, epochs, steps, folder


def test_separable_images_are_learnt_in_three_epochs(trained):
    _, history, *_ = trained
    assert max(history["val_accuracy"]) > 0.9
    assert history["loss"][-1] < history["loss"][0]


def test_history_has_a_value_an_epoch(trained):
    _, history, *_ = trained
    assert {name: len(values) for name, values in history.items()} == {
        "loss": 3,
        "accuracy": 3,
        "val_loss": 3,
        "val_accuracy": 3,
    }


def test_model_is_as_the_last_epoch_left_it(trained, image_set):
    model, history, *_ = trained
    images, labels = striped_images(TRAIN_ROWS + VAL_ROWS)
    predicted = to_numpy(model(images[TRAIN_ROWS:])).argmax(axis=1)
    assert (predicted == labels[TRAIN_ROWS:]).mean() == pytest.approx(history["val_accuracy"][-1], abs=1e-6)


def test_checkpoint_of_an_epoch_is_the_model_of_that_epoch(trained):
    model, history, _, _, folder = trained
    assert sorted(path.name for path in folder.iterdir()) == ["epoch-0001", "epoch-0002", "epoch-0003"]
    images, labels = striped_images(TRAIN_ROWS + VAL_ROWS)
    for epoch, accuracy in enumerate(history["val_accuracy"], start=1):
        loaded = keras.saving.load_model(checkpoint_folder(folder, epoch) / MODEL_FILE)
        predicted = to_numpy(loaded(images[TRAIN_ROWS:])).argmax(axis=1)
        assert (predicted == labels[TRAIN_ROWS:]).mean() == pytest.approx(accuracy, abs=1e-6)
    for last, now in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(last, now)


def test_epochs_are_reported_with_the_historys_numbers(trained):
    _, history, epochs, *_ = trained
    assert [epoch for epoch, _ in epochs] == [1, 2, 3]
    for index, (_, metrics) in enumerate(epochs):
        assert set(metrics) == {*history, EPOCH_SECONDS, IMAGES_PER_SECOND}
        assert {name: metrics[name] for name in history} == {name: history[name][index] for name in history}
        # Validation is in the seconds, but not in the images a second.
        assert metrics[IMAGES_PER_SECOND] > TRAIN_ROWS / metrics[EPOCH_SECONDS]


def test_every_step_is_reported_once(trained):
    *_, steps, _ = trained
    # 240 images in batches of 32 are 8 steps, the last of 16 images.
    assert steps == [(done, 24) for done in range(1, 25)]


def test_no_petastorm_thread_is_left(trained):
    assert petastorm_threads() == []


@pytest.mark.parametrize("seed", [0, 5])
def test_same_seed_gives_the_same_history(image_set, seed):
    first, second = (fit_model(image_set, settings(image_set, epochs=1, seed=seed), [])[1] for _ in range(2))
    for name, values in first.items():
        # Threads may add up floats in another order.
        assert second[name] == pytest.approx(values, rel=1e-3), name


def test_another_seed_gives_another_history(image_set):
    losses = [fit_model(image_set, settings(image_set, epochs=1, seed=s), [])[1]["val_loss"][0] for s in (0, 3)]
    assert losses[0] != pytest.approx(losses[1], rel=1e-2)


@pytest.mark.parametrize(("patience", "epochs"), [(1, 2), (2, 3), (0, 4)])
def test_patience_stops_when_val_accuracy_does_not_rise(image_set, patience, epochs):
    # A step so small that it changes nothing: epoch 1 is the best.
    still = settings(image_set, epochs=4, patience=patience, learning_rate=1e-30)
    _, history = fit_model(image_set, still, [])
    assert len(history["val_accuracy"]) == epochs


@pytest.mark.parametrize("missing", ["train", "val"])
def test_set_without_train_or_val_is_refused(tmp_path, missing):
    images, labels = striped_images(20)
    there = {"train": "val", "val": "train"}[missing]
    image_set = write_image_set(tmp_path, images, labels, [there] * 20, classes=CLASSES)
    with pytest.raises(ImageSetError, match=f"has no {missing} images"):
        fit_model(image_set, settings(image_set), [])


@pytest.mark.parametrize("options", [{"depth": 3}, {"mean": 3}, {"classes": 3}, {"name": "x"}], ids=str)
def test_option_that_the_architecture_lacks_is_a_config_error(image_set, options):
    given = TrainSettings(data={"path": image_set.folder.uri}, model={"options": options})
    with pytest.raises(ConfigError, match="model.options"):
        fit_model(image_set, given, [])
