"""Checkpoints: whole or not there, whenever the process that writes them is killed."""

import os
import random
import signal
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from cnnlib.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

import keras  # noqa: E402

from cnnlib.errors import ConfigError  # noqa: E402
from cnnlib.training.checkpoints import (  # noqa: E402
    MODEL_FILE,
    STATE_FILE,
    TrainingState,
    best_epoch,
    checkpoint_folder,
    newest_checkpoint,
    read_checkpoint,
    read_state,
    remove_checkpoints,
    write_checkpoint,
)

KILLS = 100


def small_model(weight: float) -> keras.Model:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(optimizer="adam", loss="mse")
    model.optimizer.build(model.trainable_variables)
    model.set_weights([np.array([[weight]])])
    return model


def state_of(epoch: int) -> TrainingState:
    values = [0.5 + 0.001 * number for number in range(epoch)]
    return TrainingState(epoch, {"val_accuracy": values}, epoch, values[-1], 7, "a fingerprint", {"train.seed": 7})


def weight_in(folder: Path) -> float:
    return float(keras.saving.load_model(folder / MODEL_FILE).get_weights()[0][0, 0])


@pytest.mark.parametrize(
    ("values", "direction", "expected"),
    [
        ([0.5], "max", 1),
        ([0.90, 0.97, 0.95], "max", 2),
        ([0.90, 0.97, 0.95, 0.97], "max", 2),
        ([0.97, 0.97], "max", 1),
        ([0.1, 0.2, 0.3], "max", 3),
        # The best of all, not the last that was better than the one before it.
        ([0.2, 0.3, 0.25], "min", 1),
        ([0.3, 0.1, 0.2, 0.15], "min", 2),
        ([float("nan"), 0.1], "max", 2),
        ([0.1, float("nan")], "min", 1),
        ([float("nan")], "max", 1),
    ],
)
def test_best_epoch_is_the_first_of_the_best(values, direction, expected):
    assert best_epoch(values, direction) == expected


def test_checkpoint_keeps_model_optimizer_and_state(tmp_path):
    model = small_model(0.25)
    model.optimizer.learning_rate = 0.125
    path = write_checkpoint(tmp_path, model, state_of(3))
    assert path == tmp_path / "epoch-0003"
    assert [entry.name for entry in tmp_path.iterdir()] == ["epoch-0003"]
    loaded, state = read_checkpoint(path)
    assert weight_in(path) == 0.25
    assert float(loaded.optimizer.learning_rate) == 0.125
    assert state == state_of(3)
    assert state.logs(2) == {"val_accuracy": 0.501}


def test_checkpoint_that_cannot_be_saved_leaves_nothing(tmp_path):
    class Unsaved:
        def save(self, path: Path) -> None:
            path.write_bytes(b"half a model")
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        write_checkpoint(tmp_path, Unsaved(), state_of(1))
    assert list(tmp_path.iterdir()) == []


def test_checkpoint_of_the_same_epoch_is_replaced(tmp_path):
    write_checkpoint(tmp_path, small_model(0.25), state_of(1))
    write_checkpoint(tmp_path, small_model(0.5), state_of(1))
    assert weight_in(tmp_path / "epoch-0001") == 0.5


def test_newest_and_removed_checkpoints(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    for epoch in (1, 2, 9, 10):
        write_checkpoint(tmp_path, small_model(epoch), state_of(epoch))
    assert newest_checkpoint(tmp_path) == tmp_path / "epoch-0010"
    remove_checkpoints(tmp_path, up_to=9)
    assert [entry.name for entry in tmp_path.iterdir()] == ["epoch-0010"]


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_text('{"epoch": 3')])
def test_state_that_cannot_be_read_is_a_config_error(tmp_path, damage):
    folder = write_checkpoint(tmp_path, small_model(0.25), state_of(1))
    damage(folder / STATE_FILE)
    with pytest.raises(ConfigError, match="is not a checkpoint of this sparkcnn"):
        read_state(folder)


def write_for_ever(folder: Path, begin: Connection) -> None:
    """What is killed: writes checkpoint after checkpoint, each with its epoch as the weight."""
    newest = newest_checkpoint(folder)
    epoch = read_state(newest).epoch if newest else 0
    model = small_model(0)
    begin.send("writing")
    while True:
        epoch += 1
        model.set_weights([np.array([[epoch]])])
        write_checkpoint(folder, model, state_of(epoch))
        remove_checkpoints(folder, up_to=epoch - 2)


@pytest.mark.slow
def test_killed_at_a_hundred_moments_the_newest_complete_checkpoint_loads(tmp_path):
    # The server imports Keras once; each child is a process of its own, forked before TensorFlow is in use.
    context = get_context("forkserver")
    context.set_forkserver_preload(["cnnlib.training.checkpoints", __name__])
    moments = random.Random(0)
    interrupted = 0
    seen = 0
    for _ in range(KILLS):
        begin, begin_there = context.Pipe(duplex=False)
        child = context.Process(target=write_for_ever, args=(tmp_path, begin_there), daemon=True)
        child.start()
        assert begin.recv() == "writing"
        child.join(moments.uniform(0, 0.1))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL
        interrupted += any(entry.name.startswith(".") for entry in tmp_path.iterdir())
        newest = newest_checkpoint(tmp_path)
        if newest is None:
            assert seen == 0
            continue
        model, state = read_checkpoint(newest)
        assert newest == checkpoint_folder(tmp_path, state.epoch)
        assert float(model.get_weights()[0][0, 0]) == state.epoch
        assert state == state_of(state.epoch)
        assert state.epoch >= seen
        seen = state.epoch
    # Most of the kills hit a half-written one.
    assert interrupted > KILLS / 2
    assert seen > 0
