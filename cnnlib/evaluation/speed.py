"""How fast models are beside one another: in turns, for a machine that is shared is now fast and now slow."""

import time
from collections.abc import Callable, Sequence

import numpy as np

ROUNDS = 7
SECONDS_A_TURN = 0.25
FEWEST_IMAGES = 16


def images_per_second(models: Sequence[Callable[[np.ndarray], object]], images: np.ndarray) -> np.ndarray:
    """What each of some models makes of images (images, height, width, channels): (rounds, models) images/s.

    A turn takes as many of the images as the first model, warm, does in a quarter second.
    """
    few = images[:FEWEST_IMAGES]
    for predict in models:
        predict(few)
        predict(few)
    most = max(FEWEST_IMAGES, int(SECONDS_A_TURN * _rate(models[0], few)))
    shown = images[:most]
    rates = np.empty((ROUNDS, len(models)))
    for number in range(ROUNDS):
        # Now in this order, now in the other.
        for model in range(len(models))[:: 1 if number % 2 else -1]:
            rates[number, model] = _rate(models[model], shown)
    return rates


def _rate(predict: Callable[[np.ndarray], object], images: np.ndarray) -> float:
    begin = time.perf_counter()
    predict(images)
    return len(images) / (time.perf_counter() - begin)
