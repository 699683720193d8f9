"""Every failure a user can cause: one exception class a kind, each with a stable code and an exit status.

The command line prints `message` as one line and ends with `exit_status`:

| status | meaning |
|---|---|
| 0 | done |
| 1 | a fault of the program, or of a service it relies on |
| 2 | settings, paths, services or the machine are not as needed; no output was changed |
| 3 | the job ran, but its result misses a limit in the settings, or its loss ran away |
| 4 | a model did not pass a gate; the alias stays where it is |
| 130 | interrupted |
"""

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
    "first_line",
]

INTERRUPTED = 130


class ConfigError(SparkcnnError):
    """A setting is unknown, missing, of the wrong type or out of range, or two settings contradict."""

    code = "config"
    exit_status = 2


class HostError(SparkcnnError):
    """This machine lacks something: Java, a supported Python, a port, a folder to write."""

    code = "host"
    exit_status = 2


class SourceError(SparkcnnError):
    """What ingest or score was pointed at cannot be read as the format that was named."""

    code = "source"
    exit_status = 2


class OutputExistsError(SparkcnnError):
    """The output path holds something already and overwriting was not asked for."""

    code = "output_exists"
    exit_status = 2


class ImageSetError(SparkcnnError):
    """A folder is not an image set, or not one that this version reads."""

    code = "image_set"
    exit_status = 2


class FeedError(SparkcnnError):
    """Petastorm cannot be used, or stopped giving data."""

    code = "feed"


class TrainingError(SparkcnnError):
    """Workers were lost more often than `train.max_restarts` allows, or no trial of a study came to its end."""

    code = "training"


class DivergenceError(SparkcnnError):
    """The loss of a training ran away. `quoted` has the ids of the images of the step in which it did."""

    code = "divergence"
    exit_status = 3


class TrackingError(SparkcnnError):
    """The MLflow server or store does not answer as it should."""

    code = "tracking"
    exit_status = 2


class PromotionError(SparkcnnError):
    """An alias cannot move: another job is about to move it, or has moved it meanwhile, or there is nowhere to go."""

    code = "promotion"
    exit_status = 2


class GateError(SparkcnnError):
    """A challenger did not pass a gate, and the alias stays where it is."""

    code = "gate"
    exit_status = 4


class LimitError(SparkcnnError):
    """The job ran, but its result misses a limit in the settings (rejects, failed rows, accuracy)."""

    code = "limit"
    exit_status = 3
