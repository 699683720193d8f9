"""The processes of test_data_parallel.py: each trains small models and writes its results to a file.

python -m tests.unit.data_parallel_rank FOLDER

Importing TensorFlow takes 8 s of CPU time, so this imports it once. Then it forks a process for each rank, and one that
has all rows alone, before any of them uses TensorFlow. It writes FOLDER/ring-0.npz, ring-1.npz, collectives-0.npz,
collectives-1.npz and alone-0.npz.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from cnnlib.quiet import import_tensorflow_quietly

import_tensorflow_quietly(in_task=True)

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from cnnlib.training.callbacks import AverageStatistics, EpochSeeds  # noqa: E402
from cnnlib.training.ranks import ALONE, CollectiveRanks, Ranks, RingRanks  # noqa: E402
from cnnlib.training.ring import Ring  # noqa: E402
from cnnlib.training.training_model import TrainingModel  # noqa: E402
from pipelines.train.workers.connections import address_of, close_all, listen  # noqa: E402

RANKS = 2
BATCH = 16
STEPS = 6
ROWS = BATCH * STEPS
# This number does not divide by the ranks, so rank 0 has one row more.
VAL_ROWS = 37
FEATURES = 5
CLASSES = 3


def rows(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points (count, 5) float32 and their classes (count,), which follow from the points."""
    random = np.random.default_rng(seed)
    points = random.normal(size=(count, FEATURES)).astype(np.float32)
    return points, points[:, :CLASSES].argmax(axis=1)


def plain_model(*between: keras.layers.Layer, learning_rate: float = 0.3) -> keras.Model:
    """Return a model with the same weights in every process."""
    keras.utils.set_random_seed(7)
    inputs = hidden = keras.Input((FEATURES,))
    # This layer adds 0, so its weights have no gradient.
    hidden = hidden + 0 * keras.ops.stop_gradient(keras.layers.Dense(FEATURES, kernel_initializer="ones")(hidden))
    for layer in (keras.layers.Dense(8, activation="relu"), *between, keras.layers.Dense(CLASSES)):
        hidden = layer(hidden)
    return compiled(keras.Model(inputs, hidden), keras.optimizers.SGD(learning_rate, momentum=0.9))


def compiled(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> keras.Model:
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


def training_model(plain: keras.Model, ranks: Ranks) -> keras.Model:
    return plain if ranks.count == 1 else compiled(TrainingModel(plain, ranks), plain.optimizer)


def rows_of_rank(array: np.ndarray, ranks: Ranks) -> np.ndarray:
    """Return this rank's rows of each batch, one batch after the other."""
    return array.reshape(STEPS, ranks.count, BATCH // ranks.count, *array.shape[1:])[:, ranks.rank].reshape(
        -1, *array.shape[1:]
    )


def fit(model: keras.Model, ranks: Ranks, *callbacks: keras.callbacks.Callback, epochs: int = 2) -> dict[str, list]:
    """Train the model on this rank's rows, and return the history."""
    points, classes = rows(1, ROWS)
    val_points, val_classes = rows(2, VAL_ROWS)
    return model.fit(
        rows_of_rank(points, ranks),
        rows_of_rank(classes, ranks),
        batch_size=BATCH // ranks.count,
        validation_data=(val_points[ranks.rank :: ranks.count], val_classes[ranks.rank :: ranks.count]),
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
    ).history


class KeepStatistics(keras.callbacks.Callback):
    """Keep this rank's own moving averages at the end of an epoch's training."""

    def __init__(self) -> None:
        super().__init__()
        self.own: list[np.ndarray] = []

    def on_test_begin(self, logs: object = None) -> None:
        self.own = [value.numpy() for value in self.model.non_trainable_weights]


class KeepDraws(keras.callbacks.Callback):
    """Keep the units that dropout drops first in each epoch."""

    def __init__(self, dropout: keras.layers.Dropout) -> None:
        super().__init__()
        self._dropout = dropout
        self.drawn: list[np.ndarray] = []

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self.drawn.append(self._dropout(np.ones((1, 64), np.float32), training=True).numpy())


def joint_results(ranks: Ranks) -> dict[str, np.ndarray]:
    """Train on the joint batches of all ranks, and return metrics and weights."""
    plain = plain_model()
    history = fit(training_model(plain, ranks), ranks)
    metrics = {f"joint/{name}": np.array(values) for name, values in history.items()}
    return metrics | numbered("joint", plain.get_weights()) | {"val_rows": np.array(VAL_ROWS)}


def statistics_results(ranks: Ranks) -> dict[str, np.ndarray]:
    """Train with BatchNormalization; return the weights, and the moving averages before and after averaging."""
    plain = plain_model(keras.layers.BatchNormalization(momentum=0.5))
    kept = KeepStatistics()
    fit(training_model(plain, ranks), ranks, kept, AverageStatistics(), epochs=1)
    averaged = [value.numpy() for value in plain.non_trainable_weights]
    return numbered("normalised", plain.get_weights()) | numbered("own", kept.own) | numbered("averaged", averaged)


def dropout_results(ranks: Ranks) -> dict[str, np.ndarray]:
    """Return dropout's draws of three trainings of one model: (2 epochs, 64) each."""
    dropout = keras.layers.Dropout(0.5)
    model = training_model(plain_model(dropout), ranks)
    found = {}
    for name, seed in {"draws": 3, "draws again": 3, "draws by another seed": 4}.items():
        kept = KeepDraws(dropout)
        fit(model, ranks, EpochSeeds(seed, ranks.rank), kept)
        found[name] = np.concatenate(kept.drawn)
    return found


def sum_results(ranks: Ranks) -> dict[str, np.ndarray]:
    first, second = (ranks.sum([tf.fill([20], value)])[0] for value in (1.0, 10.0))
    return {
        "gathered": ranks.gather([ranks.rank + 0.25, 7.0]),
        "sums": np.stack([first.numpy(), second.numpy()]),
    }


def numbered(name: str, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{name}/weights/{number}": array for number, array in enumerate(arrays)}


def run_rank(ranks: Ranks) -> dict[str, np.ndarray]:
    found = sum_results(ranks) | joint_results(ranks) | statistics_results(ranks) | dropout_results(ranks)
    ranks.gather([0.0])  # no rank leaves before the others are done
    return found


def fork(file: Path, work: Callable[[], dict[str, np.ndarray]]) -> int:
    """Do the work in a forked process that saves its results; return the id of the process."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        np.savez(file, **work())
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        # A normal exit would wait for the threads of TensorFlow's collectives.
        os._exit(status)


def fork_ring(folder: Path) -> list[int]:
    listeners = [listen("127.0.0.1", None) for _ in range(RANKS)]
    addresses = [address_of(listener) for listener in listeners]

    def work(rank: int) -> dict[str, np.ndarray]:
        return run_rank(RingRanks(rank, RANKS, Ring(rank, addresses, listeners[rank], b"known to all")))

    children = [fork(folder / f"ring-{rank}.npz", partial(work, rank)) for rank in range(RANKS)]
    close_all(*listeners)
    return children


def fork_collectives(folder: Path) -> list[int]:
    listeners = [listen("127.0.0.1", None) for _ in range(RANKS)]
    addresses = [address_of(listener) for listener in listeners]
    # TensorFlow opens the ports itself. They must be free in all processes.
    close_all(*listeners)

    def work(rank: int) -> dict[str, np.ndarray]:
        return run_rank(CollectiveRanks(rank, addresses, gpu=False))

    return [fork(folder / f"collectives-{rank}.npz", partial(work, rank)) for rank in range(RANKS)]


def main(folder: Path) -> int:
    alone = fork(folder / "alone-0.npz", partial(joint_results, ALONE))
    running = {alone, *fork_ring(folder), *fork_collectives(folder)}
    while running:
        child, status = os.wait()
        running.remove(child)
        if status != 0:
            # The others would wait for this one.
            for other in running:
                os.kill(other, signal.SIGKILL)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
