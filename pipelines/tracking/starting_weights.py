"""The weights that a training starts from, as `model.weights` names them; a registered model is downloaded."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from cnnlib.config import TrainSettings
from cnnlib.config.train import TrainingSections
from cnnlib.sealed.seal import ARTIFACTS
from cnnlib.sealed.starting_weights import IMAGENET_WEIGHTS, REGISTERED
from pipelines.tracking.registry import fetch_model, pin_version

SettingsWithModel = TypeVar("SettingsWithModel", bound=TrainingSections)


def with_pinned_weights(settings: SettingsWithModel) -> SettingsWithModel:
    """Return the same settings with `pin_weights` of `model.weights`.

    Raises ModelError if the connected store has no such model or alias.
    """
    model = settings.model.model_copy(update={"weights": pin_weights(settings.model.weights)})
    return settings.model_copy(update={"model": model})


def pin_weights(weights: str | None) -> str | None:
    """Make a value of `model.weights` mean the same in every process and at any time.

    An alias becomes a version, because an alias may move while ranks and trials start. A path becomes absolute, because
    ranks and trials have working folders of their own.
    """
    if weights is None or weights == IMAGENET_WEIGHTS:
        return weights
    return pin_version(weights) if weights.startswith(REGISTERED) else str(Path(weights).absolute())


@contextmanager
def starting_weights(settings: TrainSettings) -> Iterator[str | None]:
    """Give `model.weights` as `fit_model` takes it. A registered model is in a folder that exists during the body."""
    weights = settings.model.weights
    if weights is None or not weights.startswith(REGISTERED):
        yield weights
        return
    with TemporaryDirectory(prefix="sparkcnn-weights-") as temporary:
        yield str(fetch_model(weights, Path(temporary)).folder / ARTIFACTS)


@contextmanager
def fetched_once() -> Iterator[Callable[[TrainSettings], str | None]]:
    """Give a function that does what `starting_weights` does, and downloads each registered model only once.

    The downloaded folders exist during the body.
    """
    with ExitStack() as stack:
        fetched: dict[str | None, str | None] = {}

        def weights_of(settings: TrainSettings) -> str | None:
            weights = settings.model.weights
            if weights not in fetched:
                fetched[weights] = stack.enter_context(starting_weights(settings))
            return fetched[weights]

        yield weights_of
