"""What `model.weights` names, for a training to begin with: a registered model is pinned, and then downloaded."""

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
    """The same with a version in the place of an alias, which may move while ranks and trials start.

    A path becomes absolute: those have working folders of their own. Raises ModelError where the store that is
    connected has no such model or alias.
    """
    model = settings.model.model_copy(update={"weights": pinned(settings.model.weights)})
    return settings.model_copy(update={"model": model})


def pinned(weights: str | None) -> str | None:
    """What stays the same in any folder, and at any time: see `with_pinned_weights`."""
    if weights is None or weights == IMAGENET_WEIGHTS:
        return weights
    return pin_version(weights) if weights.startswith(REGISTERED) else str(Path(weights).absolute())


@contextmanager
def starting_weights(settings: TrainSettings) -> Iterator[str | None]:
    """`model.weights` as `fit_model` takes it: what is registered lies in a folder that is there within the block."""
    weights = settings.model.weights
    if weights is None or not weights.startswith(REGISTERED):
        yield weights
        return
    with TemporaryDirectory(prefix="sparkcnn-weights-") as temporary:
        yield str(fetch_model(weights, Path(temporary)).folder / ARTIFACTS)


@contextmanager
def fetched_once() -> Iterator[Callable[[TrainSettings], str | None]]:
    """`starting_weights` for many settings: each registered model is downloaded once, and is there within the block."""
    with ExitStack() as stack:
        fetched: dict[str | None, str | None] = {}

        def weights_of(settings: TrainSettings) -> str | None:
            weights = settings.model.weights
            if weights not in fetched:
                fetched[weights] = stack.enter_context(starting_weights(settings))
            return fetched[weights]

        yield weights_of
