"""One of the processes that test_data_parallel.py connects: trains small models and keeps what it finds in a file.

python -m tests.unit.data_parallel_rank ENGINE RANK HOST:PORT,HOST:PORT LISTENER FILE.npz

ENGINE is ring or collectives, LISTENER the file descriptor of a socket that listens at this rank's address.
"""

import socket
import sys

import keras
import numpy as np
import tensorflow as tf

from cnnlib.training.callbacks import AverageStatistics, EpochSeeds
from cnnlib.training.ranks import CollectiveRanks, Ranks, RingRanks
from cnnlib.training.ring import Ring
from cnnlib.training.training_model import TrainingModel

BATCH = 16
STEPS = 6
ROWS = BATCH * STEPS
# Rows that do not divide by the ranks: the last of them is rank 0's alone.
VAL_ROWS = 37
FEATURES = 5
CLASSES = 3


def rows(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (count, 5) float32 and their classes (count,), which follow from them."""
    random = np.random.default_rng(seed)
    points = random.normal(size=(count, FEATURES)).astype(np.float32)
    return points, points[:, :CLASSES].argmax(axis=1)


def plain_model(*between: keras.layers.Layer, learning_rate: float = 0.3) -> keras.Model:
    """The same weights in every process."""
    keras.utils.set_random_seed(7)
    inputs = hidden = keras.Input((FEATURES,))
    # What it adds is nothing, so its weights have no gradient.
    hidden = hidden + 0 * keras.ops.stop_gradient(keras.layers.Dense(FEATURES, kernel_initializer="ones")(hidden))
    for layer in (keras.layers.Dense(8, activation="relu"), *between, keras.layers.Dense(CLASSES)):
        hidden = layer(hidden)
    model = keras.Model(inputs, hidden)
    compiled(model, keras.optimizers.SGD(learning_rate, momentum=0.9))
    return model


def compiled(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> keras.Model:
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


def share(array: np.ndarray, ranks: Ranks) -> np.ndarray:
    """This rank's part of each batch, one after the other."""
    return array.reshape(STEPS, ranks.count, BATCH // ranks.count, *array.shape[1:])[:, ranks.rank].reshape(
        -1, *array.shape[1:]
    )


def fit(plain: keras.Model, ranks: Ranks, *callbacks: keras.callbacks.Callback, epochs: int = 2) -> dict[str, list]:
    """Train `plain` on this rank's part of the rows, and give the history."""
    model = plain
    if ranks.count > 1:
        model = compiled(TrainingModel(plain, ranks), plain.optimizer)
    points, classes = rows(1, ROWS)
    val_points, val_classes = rows(2, VAL_ROWS)
    return model.fit(
        share(points, ranks),
        share(classes, ranks),
        batch_size=BATCH // ranks.count,
        validation_data=(val_points[ranks.rank :: ranks.count], val_classes[ranks.rank :: ranks.count]),
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
    ).history


class KeepStatistics(keras.callbacks.Callback):
    """Keeps the moving averages that this rank has come to by itself at the end of an epoch's training."""

    def __init__(self) -> None:
        super().__init__()
        self.own: list[np.ndarray] = []

    def on_test_begin(self, logs: object = None) -> None:
        self.own = [value.numpy() for value in self.model.non_trainable_weights]


class KeepDraws(keras.callbacks.Callback):
    """Keeps which units dropout drops first in each epoch."""

    def __init__(self, dropout: keras.layers.Dropout) -> None:
        super().__init__()
        self._dropout = dropout
        self.drawn: list[np.ndarray] = []

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self.drawn.append(self._dropout(np.ones((1, 64), np.float32), training=True).numpy())


def draws(ranks: Ranks, seed: int) -> np.ndarray:
    """(2 epochs, 64) of dropout's draws."""
    dropout = keras.layers.Dropout(0.5)
    kept = KeepDraws(dropout)
    fit(plain_model(dropout), ranks, EpochSeeds(seed, ranks.rank), kept)
    return np.concatenate(kept.drawn)


def found_by(ranks: Ranks) -> dict[str, np.ndarray]:
    """What this rank finds, by name."""
    first, second = (ranks.sum([tf.fill([20], value)])[0] for value in (1.0, 10.0))
    found: dict[str, np.ndarray] = {
        "collect_from_tasks": ranks.gather([ranks.rank + 0.25, 7.0]),
        "sums": np.stack([first.numpy(), second.numpy()]),
    }
    joint = plain_model()
    for name, values in fit(joint, ranks).items():
        found[f"joint/{name}"] = np.array(values)
    normalised = plain_model(keras.layers.BatchNormalization(momentum=0.5))
    kept = KeepStatistics()
    fit(normalised, ranks, kept, AverageStatistics(), epochs=1)
    weights = {
        "joint": joint.get_weights(),
        "normalised": normalised.get_weights(),
        "own": kept.own,
        "averaged": [value.numpy() for value in normalised.non_trainable_weights],
    }
    for name, arrays in weights.items():
        found |= {f"{name}/weights/{number}": array for number, array in enumerate(arrays)}
    return found | {"draws": draws(ranks, 3), "draws again": draws(ranks, 3), "draws by another seed": draws(ranks, 4)}


def connected(engine: str, rank: int, addresses: list[str], listener: socket.socket) -> Ranks:
    if engine == "ring":
        return RingRanks(rank, len(addresses), Ring(rank, addresses, listener, b"known to all"))
    listener.close()  # TensorFlow opens the port itself
    return CollectiveRanks(rank, addresses, gpu=False)


if __name__ == "__main__":
    engine, rank, addresses, listener, file = sys.argv[1:]
    ranks = connected(engine, int(rank), addresses.split(","), socket.socket(fileno=int(listener)))
    np.savez(file, **found_by(ranks))
    ranks.gather([0.0])  # none leaves before the others are done
