"""The failures that a user can meet: one exception class per kind, each with a stable code and an exit status.

The command line prints `message` as one line and ends with `exit_status`:

| status | meaning |
|---|---|
| 0 | done |
| 1 | the program, or a service that it relies on, has failed |
| 2 | settings, paths, services or the machine are not as needed; no output was changed |
| 3 | the job ran, but its result misses a limit in the settings, or its loss diverged |
| 4 | a model did not pass a gate; the alias did not move |
| 130 | interrupted |
"""

import difflib
from collections.abc import Iterable

from cnnlib.sealed.frozen.errors import IMAGE_ERROR_CODES, ImageError, ModelError, SparkcnnError, first_line

__all__ = [
    "IMAGE_ERROR_CODES",
    "INTERRUPTED",
    "ConfigError",
    "DivergenceError",
    "FeedError",
    "GateError",
    "HostError",
    "ImageError",
    "ImageSetError",
    "LimitError",
    "ModelError",
    "OutputExistsError",
    "PromotionError",
    "SourceError",
    "SparkcnnError",
    "TrackingError",
    "TrainingError",
    "did_you_mean",
    "first_line",
]

INTERRUPTED = 130


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """Ask whether the nearest known name was meant. Return `otherwise` if no known name is similar.

    >>> did_you_mean("lenett", ("lenet", "mlp"), "see the list")
    'did you mean lenet?'
    >>> did_you_mean("x", ("lenet", "mlp"), "see the list")
    'see the list'
    """
    nearest = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {nearest[0]}?" if nearest else otherwise


class ConfigError(SparkcnnError):
    """A setting is unknown, missing, of the wrong type or out of range, or two settings contradict each other."""

    code = "config"
    exit_status = 2


class HostError(SparkcnnError):
    """This machine lacks something: Java, a supported Python, a free port, a writable folder."""

    code = "host"
    exit_status = 2


class SourceError(SparkcnnError):
    """The source of an ingest or of a scoring cannot be read in the given format."""

    code = "source"
    exit_status = 2


class OutputExistsError(SparkcnnError):
    """The output path already has content, and `output.overwrite` is not set."""

    code = "output_exists"
    exit_status = 2


class ImageSetError(SparkcnnError):
    """A folder is not an image set, or its format is one that this version cannot read."""

    code = "image_set"
    exit_status = 2


class FeedError(SparkcnnError):
    """petastorm cannot be used, or the feed cannot read a file, or its data stopped coming."""

    code = "feed"


class TrainingError(SparkcnnError):
    """Workers were lost more often than `train.max_restarts` allows, or no trial of a study finished."""

    code = "training"


class DivergenceError(SparkcnnError):
    """The loss of a training diverged. `quoted` has the ids of the images of the step in which that happened."""

    code = "divergence"
    exit_status = 3


class TrackingError(SparkcnnError):
    """The MLflow server or store does not answer, or gives an unexpected answer."""

    code = "tracking"
    exit_status = 2


class PromotionError(SparkcnnError):
    """An alias cannot move: another job is moving or has moved it, or there is no version to move it to."""

    code = "promotion"
    exit_status = 2


class GateError(SparkcnnError):
    """A challenger did not pass a gate, so the alias did not move."""

    code = "gate"
    exit_status = 4


class LimitError(SparkcnnError):
    """The job ran, but its result misses a limit in the settings (rejects, failed rows, accuracy)."""

    code = "limit"
    exit_status = 3
