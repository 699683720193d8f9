"""Compare how fast models are.

The models take turns, because a machine that others use too is faster at one moment than at another.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np

ROUNDS = 7
SECONDS_PER_TURN = 0.25
MIN_IMAGES = 16


def images_per_second(models: Sequence[Callable[[np.ndarray], object]], images: np.ndarray) -> np.ndarray:
    """Measure how fast models predict images (images, height, width, channels): (rounds, models) images/s.

    In a turn, a model predicts as many images as the first model, once warm, predicts in a quarter of a second. Too few
    images are repeated, because a turn of some milliseconds would measure what else the machine does.
    """
    few = images[:MIN_IMAGES]
    for predict in models:
        predict(few)
        predict(few)
    most = max(MIN_IMAGES, int(SECONDS_PER_TURN * _rate(models[0], few)))
    shown = np.resize(images, (most, *images.shape[1:]))
    rates = np.empty((ROUNDS, len(models)))
    for number in range(ROUNDS):
        # Reverse the order every second round.
        for model in range(len(models))[:: 1 if number % 2 else -1]:
            rates[number, model] = _rate(models[model], shown)
    return rates


def _rate(predict: Callable[[np.ndarray], object], images: np.ndarray) -> float:
    start = time.perf_counter()
    predict(images)
    return len(images) / (time.perf_counter() - start)
