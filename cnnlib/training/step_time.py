"""How long a step of training takes on this machine."""

import statistics
import time

import keras
import numpy as np

# The first steps trace the model's graph and set up memory.
WARM_UP_STEPS = 3


def measure_step_seconds(model: keras.Model, worker_batch_size: int, steps: int) -> float:
    """The median time of a training step of a compiled classifier, on random images that are in memory already."""
    random = np.random.default_rng(0)
    # (batch, height, width, channels) uint8 and (batch,) int32
    images = random.integers(0, 256, (worker_batch_size, *model.input_shape[1:]), dtype=np.uint8)
    labels = random.integers(0, model.output_shape[-1], worker_batch_size, dtype=np.int32)
    seconds = []
    for _ in range(WARM_UP_STEPS + steps):
        start = time.perf_counter()
        model.train_on_batch(images, labels)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[WARM_UP_STEPS:])


def gradient_bytes(model: keras.Model) -> int:
    """The size of the message that each rank sends a step: the gradients of all trainable weights, in float32."""
    return 4 * sum(int(np.prod(weights.shape)) for weights in model.trainable_weights)
