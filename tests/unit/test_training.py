"""Training learns, repeats itself, stops in time, goes on from a checkpoint, and reports true numbers."""

from dataclasses import replace

import numpy as np
import pytest

from cnnlib.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

import keras  # noqa: E402
from keras.ops import convert_to_numpy as to_numpy  # noqa: E402

from cnnlib.config import TrainSettings  # noqa: E402
from cnnlib.errors import ConfigError, FeedError, ImageSetError  # noqa: E402
from cnnlib.training.callbacks import (  # noqa: E402
    DATA_WAIT_SHARE,
    EPOCH_SECONDS,
    IMAGES_PER_SECOND,
    STEP_SECONDS,
    StepReport,
)
from cnnlib.training.checkpoints import checkpoint_folder, read_checkpoint  # noqa: E402
from cnnlib.training.compiled_model import compile_model, new_model  # noqa: E402
from cnnlib.training.fit import is_over  # noqa: E402
from cnnlib.training.learning_rate import global_batch_size, scaled_learning_rate  # noqa: E402
from cnnlib.training.preconditions import check_fit  # noqa: E402
from cnnlib.training.training_model import TrainingModel  # noqa: E402
from tests.unit.feeds import StuckFileSystem, within  # noqa: E402
from tests.unit.image_sets import write_image_set  # noqa: E402
from tests.unit.petastorm_threads import petastorm_threads  # noqa: E402
from tests.unit.trainings import (  # noqa: E402
    CLASSES,
    LENET,
    TRAIN_ROWS,
    VAL_ROWS,
    RecordedFit,
    history_of,
    settings,
    striped_images,
    striped_set,
)


@pytest.fixture(scope="module")
def image_set(tmp_path_factory):
    return striped_set(tmp_path_factory.mktemp("set"))


# --- reports


def test_step_report_counts_over_all_epochs():
    reported = []
    report = StepReport(lambda done, total, note: reported.append((done, total, note)))
    report.set_params({"epochs": 3, "steps": 5})
    report.on_epoch_begin(0)
    report.on_train_batch_end(0, {"loss": 0.5})
    report.on_epoch_begin(2)
    report.on_train_batch_end(4, {"loss": 0.25, "accuracy": 0.9})
    assert reported == [
        (1, 15, "steps, epoch 1/3: loss 0.5000"),
        (15, 15, "steps, epoch 3/3: loss 0.2500, accuracy 0.9000"),
    ]


# --- fit


@pytest.fixture(scope="module")
def trained(image_set, tmp_path_factory):
    """(model, history, recorded fit, folder of checkpoints) of 3 epochs."""
    folder = tmp_path_factory.mktemp("checkpoints")
    recorded = RecordedFit()
    model, history = recorded.fit(
        image_set, settings(image_set, epochs=3, patience=0, model=LENET, watch_layers=True), folder=folder
    )
    return model, history, recorded, folder


def test_separable_images_are_learnt_in_three_epochs(trained):
    _, history, *_ = trained
    assert max(history["val_accuracy"]) > 0.9
    assert history["loss"][-1] < history["loss"][0]


def test_history_has_a_value_an_epoch(trained):
    _, history, *_ = trained
    of_keras = {"loss", "accuracy", "val_loss", "val_accuracy"}
    ours = {"learning_rate", EPOCH_SECONDS, IMAGES_PER_SECOND, STEP_SECONDS, DATA_WAIT_SHARE}
    of_layers = {name for name in history if name.startswith(("dead_units/", "gradient_norm/"))}
    assert history.keys() - of_layers == of_keras | ours
    assert {len(values) for values in history.values()} == {3}


def test_model_is_as_the_last_epoch_left_it(trained, image_set):
    model, history, *_ = trained
    images, labels = striped_images(TRAIN_ROWS + VAL_ROWS)
    predicted = to_numpy(model(images[TRAIN_ROWS:])).argmax(axis=1)
    assert (predicted == labels[TRAIN_ROWS:]).mean() == pytest.approx(history["val_accuracy"][-1], abs=1e-6)


def test_checkpoint_of_an_epoch_is_the_model_of_that_epoch(trained):
    model, history, _, folder = trained
    assert sorted(path.name for path in folder.iterdir()) == ["epoch-0001", "epoch-0002", "epoch-0003"]
    images, labels = striped_images(TRAIN_ROWS + VAL_ROWS)
    for epoch, accuracy in enumerate(history["val_accuracy"], start=1):
        loaded, _ = read_checkpoint(checkpoint_folder(folder, epoch))
        predicted = to_numpy(loaded(images[TRAIN_ROWS:])).argmax(axis=1)
        assert (predicted == labels[TRAIN_ROWS:]).mean() == pytest.approx(accuracy, abs=1e-6)
    for last, now in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(last, now)


def test_state_of_an_epoch_has_the_history_up_to_it(trained):
    _, history, _, folder = trained
    for epoch in (1, 2, 3):
        _, state = read_checkpoint(checkpoint_folder(folder, epoch))
        assert state.epoch == epoch
        assert state.history == {name: values[:epoch] for name, values in history.items()}
        accuracies = history["val_accuracy"][:epoch]
        assert state.best_value == max(accuracies) == accuracies[state.best_epoch - 1]


def test_timings_of_an_epoch_agree(trained):
    _, history, *_ = trained
    for epoch in range(3):
        # 240 images in 8 steps. The seconds of the epoch include validation, and those of its steps do not.
        step_seconds = history[STEP_SECONDS][epoch]
        assert history[IMAGES_PER_SECOND][epoch] == pytest.approx(TRAIN_ROWS / (8 * step_seconds))
        assert history[EPOCH_SECONDS][epoch] > 8 * step_seconds
        assert 0 <= history[DATA_WAIT_SHARE][epoch] < 1


def test_every_step_is_reported_once(trained):
    _, _, recorded, _ = trained
    # 240 images in batches of 32 are 8 steps, the last of 16 images.
    assert recorded.steps == [(done, 24) for done in range(1, 25)]


def test_no_petastorm_thread_is_left(trained):
    assert petastorm_threads() == []


@pytest.mark.parametrize("augment", [None, {"flip": "horizontal", "colour": 0.5}])
def test_training_step_is_traced_once(image_set, monkeypatch, augment):
    traced = []
    for model in (keras.Model, TrainingModel):
        step = model.train_step
        monkeypatch.setattr(model, "train_step", lambda self, data, step=step: traced.append(self) or step(self, data))
    _, history = RecordedFit().fit(image_set, settings(image_set, epochs=1, augment=augment))
    assert history.keys() >= {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert [isinstance(model, TrainingModel) for model in traced] == [augment is not None]


@pytest.fixture(scope="module")
def histories_by_seed(image_set):
    """{seed: histories of two trainings}"""
    given = {seed: settings(image_set, epochs=1, seed=seed) for seed in (0, 5)}
    return {seed: [history_of(image_set, one) for _ in range(2)] for seed, one in given.items()}


@pytest.mark.parametrize("seed", [0, 5])
def test_same_seed_gives_the_same_history(histories_by_seed, seed):
    first, second = histories_by_seed[seed]
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        # Threads may add floats in another order.
        assert second[name] == pytest.approx(first[name], rel=1e-3), name


def test_another_seed_gives_another_history(histories_by_seed):
    losses = [histories[0]["val_loss"][0] for histories in histories_by_seed.values()]
    assert losses[0] != pytest.approx(losses[1], rel=1e-2)


@pytest.mark.parametrize(("patience", "epochs"), [(1, 2), (2, 3), (0, 4)])
def test_patience_stops_when_val_accuracy_does_not_rise(image_set, patience, epochs):
    # The steps are too small to change anything, so epoch 1 is the best.
    unchanged = settings(image_set, epochs=4, patience=patience, learning_rate=1e-30)
    history = history_of(image_set, unchanged)
    assert len(history["val_accuracy"]) == epochs


@pytest.mark.parametrize("missing", ["train", "val"])
def test_set_without_train_or_val_is_refused(tmp_path, missing):
    images, labels = striped_images(20)
    there = {"train": "val", "val": "train"}[missing]
    image_set = write_image_set(tmp_path, images, labels, [there] * 20, classes=CLASSES)
    with pytest.raises(ImageSetError, match=f"has no {missing} images"):
        history_of(image_set, settings(image_set))


@pytest.mark.parametrize("options", [{"depth": 3}, {"mean": 3}, {"classes": 3}, {"name": "x"}], ids=str)
def test_unknown_model_option_is_a_config_error(image_set, options):
    given = TrainSettings(data={"path": image_set.folder.uri}, model={"options": options})
    with pytest.raises(ConfigError, match="model.options"):
        history_of(image_set, given)


@pytest.mark.parametrize(
    ("monitor", "direction", "values", "over"),
    [
        ("val_accuracy", "auto", [0.5, 0.9, 0.8], False),
        ("val_accuracy", "auto", [0.9, 0.5, 0.9], True),
        ("val_loss", "auto", [0.5, 0.9, 0.8], True),
        ("val_loss", "auto", [0.9, 0.5, 0.4], False),
        ("val_loss", "max", [0.9, 0.5, 0.4], True),
        ("val_accuracy", "auto", [float("nan"), 0.5, 0.6], False),
        ("val_loss", "auto", [0.5, float("nan"), float("nan")], True),
    ],
)
def test_patience_follows_monitor_and_direction(image_set, monitor, direction, values, over):
    given = settings(image_set, patience=2, monitor=monitor, direction=direction)
    assert is_over({monitor: values}, given) is over


@pytest.mark.parametrize(
    ("scaling", "workers", "batch", "rate"),
    [
        ("none", 8, 512, 0.02),
        ("linear", 8, 512, 0.08),
        ("square_root", 8, 512, 0.04),
        ("linear", 1, 64, 0.01),
        # The driver is one worker.
        ("linear", 0, 64, 0.01),
    ],
)
def test_learning_rate_scales_with_the_global_batch(image_set, scaling, workers, batch, rate):
    given = TrainSettings(
        data={"path": image_set.folder.uri},
        train={"workers": workers, "worker_batch_size": 64},
        optimizer={"learning_rate": 0.02, "scaling": scaling, "base_batch_size": 128},
    )
    assert global_batch_size(given) == batch
    assert scaled_learning_rate(given.optimizer, batch) == pytest.approx(rate)
    model = compile_model(new_model(image_set, given), given)
    assert float(model.optimizer.learning_rate) == pytest.approx(rate)


def test_fewer_row_groups_than_workers_is_refused(tmp_path):
    images, labels = striped_images(20)
    splits = ["train", "val"] * 10
    one_group = write_image_set(tmp_path, images, labels, splits, classes=CLASSES, files=1)
    check_fit(one_group, settings(one_group, workers=1))
    message = (
        f"train.workers=2 exceeds the 1 row groups of {one_group.folder.uri}'s train split; "
        "lower it, or ingest with a smaller output.row_group_mb or output.rows_per_file"
    )
    with pytest.raises(ConfigError) as error:
        check_fit(one_group, settings(one_group, workers=2))
    assert error.value.message == message


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ((), "has no labels, because it was ingested with source.labels=none"),
        (("only",), "has one class, only; training needs"),
    ],
)
def test_set_without_two_classes_is_refused(tmp_path, classes, message):
    images, _ = striped_images(20)
    image_set = replace(write_image_set(tmp_path, images, [0] * 20, ["train"] * 20, classes=("a",)), classes=classes)
    with pytest.raises(ConfigError, match=message):
        check_fit(image_set, settings(image_set))


@pytest.mark.parametrize("split", ["train", "val"])
def test_split_without_data_ends_training_after_timeout_s(tmp_path, split):
    images, labels = striped_images(40)
    image_set = write_image_set(tmp_path, images, labels, ["train", "val"] * 20, classes=CLASSES, files=1)
    given = settings(image_set)
    given = given.model_copy(update={"data": given.data.model_copy(update={"timeout_s": 0.5})})
    fs = StuckFileSystem()
    fs.names = f"/{split}/"
    fs.stuck.set()
    try:
        with pytest.raises(FeedError, match=f"data.timeout_s=0.5 s while reading .*/{split}/"):
            within(60, lambda: history_of(replace(image_set, folder=replace(image_set.folder, fs=fs)), given))
    finally:
        fs.freed.set()


# --- going on from a checkpoint


def weights(model: keras.Model) -> list[np.ndarray]:
    return model.get_weights() + [to_numpy(variable) for variable in model.optimizer.variables]


@pytest.fixture(scope="module")
def uninterrupted(image_set, tmp_path_factory):
    """(settings, model, history, folder of checkpoints) of 4 epochs."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    given = settings(image_set, epochs=4, patience=0, seed=2)
    return given, *RecordedFit().fit(image_set, given, folder=folder), folder


@pytest.mark.parametrize("interrupted_after", [1, 3])
def test_resumed_training_ends_with_the_same_weights(image_set, uninterrupted, interrupted_after):
    given, whole, history, folder = uninterrupted
    recorded = RecordedFit()
    resumed, resumed_history = recorded.fit(image_set, given, resume_from=checkpoint_folder(folder, interrupted_after))
    assert [state.epoch for state in recorded.states] == list(range(interrupted_after + 1, 5))
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert resumed_history[name] == pytest.approx(history[name], rel=1e-3)
    for ours, theirs in zip(weights(resumed), weights(whole), strict=True):
        # Threads may add floats in another order.
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.full
def test_patience_counts_across_an_interruption(image_set, tmp_path):
    unchanged = settings(image_set, epochs=9, patience=3, learning_rate=1e-30)
    RecordedFit().fit(image_set, unchanged, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 4
    recorded = RecordedFit()
    recorded.fit(image_set, unchanged, resume_from=checkpoint_folder(tmp_path, 2))
    assert [state.epoch for state in recorded.states] == [3, 4]


def test_finished_training_is_not_resumed(image_set, trained, tmp_path):
    _, history, _, folder = trained
    recorded = RecordedFit()
    _, same = recorded.fit(
        image_set, settings(image_set, epochs=3, patience=0), resume_from=checkpoint_folder(folder, 3)
    )
    assert (recorded.states, same) == ([], history)


def test_folder_without_a_checkpoint_is_a_config_error(image_set, tmp_path):
    with pytest.raises(ConfigError, match="is not a checkpoint"):
        RecordedFit().fit(image_set, settings(image_set), resume_from=tmp_path)
