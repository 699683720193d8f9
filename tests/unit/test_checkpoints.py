"""Checkpoints are complete or absent, whenever the process that writes them is killed."""

import os
import random
import signal
import time
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from cnnlib.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

import keras  # noqa: E402
import mlflow  # noqa: E402

from cnnlib.config import TrackingSettings  # noqa: E402
from cnnlib.errors import ConfigError  # noqa: E402
from cnnlib.training.checkpoints import (  # noqa: E402
    MODEL_FILE,
    STATE_FILE,
    TrainingState,
    best_epoch,
    checkpoint_folder,
    read_checkpoint,
    read_state,
    remove_checkpoints,
    write_checkpoint,
)
from pipelines.tracking.store import connect  # noqa: E402
from pipelines.tracking.tracker import Tracker  # noqa: E402


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


def test_checkpoints_up_to_an_epoch_are_removed(tmp_path):
    for epoch in (1, 2, 9, 10):
        write_checkpoint(tmp_path, small_model(epoch), state_of(epoch))
    remove_checkpoints(tmp_path, up_to=9)
    assert [entry.name for entry in tmp_path.iterdir()] == ["epoch-0010"]


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_text('{"epoch": 3')])
def test_unreadable_state_is_a_config_error(tmp_path, damage):
    folder = write_checkpoint(tmp_path, small_model(0.25), state_of(1))
    damage(folder / STATE_FILE)
    with pytest.raises(ConfigError, match="is not a checkpoint of this sparkcnn"):
        read_state(folder)


def newest_epoch(folder: Path) -> int:
    """Return the highest epoch that has a checkpoint folder, or 0 without any."""
    return max((int(path.name.removeprefix("epoch-")) for path in folder.glob("epoch-*")), default=0)


def write_forever(folder: Path, tracker: Tracker | None, begin: Connection) -> None:
    """Write, and publish, checkpoint after checkpoint until killed. The weight in each one is its epoch.

    Sends a message before the first one, and one after it.
    """
    epoch = tracker.latest_epoch() if tracker else newest_epoch(folder)
    model = small_model(0)
    begin.send("writing")
    first = epoch + 1
    while True:
        epoch += 1
        model.set_weights([np.array([[epoch]])])
        path = write_checkpoint(folder, model, state_of(epoch))
        if tracker:
            tracker.log_checkpoint(epoch, path)
        remove_checkpoints(folder, up_to=epoch - 2)
        if epoch == first:
            begin.send("written")


def kills(count: int, folder: Path, tracker: Tracker | None) -> Iterator[int]:
    """Kill `write_forever` at this many moments. Yield the number of each kill, from 0, after it.

    The first child lives until it has written a checkpoint. The time that this takes decides how long the others live.
    """
    # The server imports everything once. Each child is forked from it before TensorFlow is in use.
    context = get_context("forkserver")
    context.set_forkserver_preload(["cnnlib.training.checkpoints", "pipelines.tracking.tracker", __name__])
    moments = random.Random(0)
    for number in range(count):
        begin, begin_there = context.Pipe(duplex=False)
        child = context.Process(target=write_forever, args=(folder, tracker, begin_there), daemon=True)
        child.start()
        assert begin.recv() == "writing"
        if number == 0:
            start = time.monotonic()
            assert begin.recv() == "written"
            seconds = time.monotonic() - start
        child.join(moments.uniform(0, seconds))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL
        yield number


@pytest.mark.full
def test_newest_checkpoint_loads_after_a_hundred_kills(tmp_path):
    interrupted = 0
    seen = 0
    for _ in kills(100, tmp_path, None):
        interrupted += any(entry.name.startswith(".") for entry in tmp_path.iterdir())
        newest = newest_epoch(tmp_path)
        assert newest >= seen
        seen = newest
        if newest:
            check_checkpoint(checkpoint_folder(tmp_path, newest), newest)
    # Most of the kills hit a half-written checkpoint.
    assert interrupted > 50
    assert seen > 0


@pytest.mark.full
def test_latest_published_checkpoint_loads_after_kills(tmp_path):
    uri = connect(TrackingSettings(uri=f"sqlite:///{tmp_path}/mlflow.db"))
    client = mlflow.MlflowClient(uri)
    experiment = client.create_experiment("kills", (tmp_path / "artifacts").as_uri())
    tracker = Tracker(client.create_run(experiment).info.run_id, experiment, uri)
    seen = 0
    # A child takes more than a second to open the store.
    for number in kills(10, tmp_path / "written", tracker):
        latest = tracker.latest_epoch()
        assert latest >= seen
        seen = latest
        if latest:
            # A resumed training begins this way.
            check_checkpoint(tracker.fetch_checkpoint(latest, tmp_path / "fetched" / str(number)), latest)
    assert seen > 0


def check_checkpoint(folder: Path, epoch: int) -> None:
    model, state = read_checkpoint(folder)
    assert float(model.get_weights()[0][0, 0]) == epoch
    assert state == state_of(epoch)
