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

from collections.abc import Sequence

INTERRUPTED = 130


class SparkcnnError(Exception):
    """The root of all errors that end in one line for the user.

    `message` says what is wrong, what was received and what to do; `quoted` has lines that another process wrote.
    """

    code = "error"
    exit_status = 1

    def __init__(self, message: str, quoted: Sequence[str] = ()) -> None:
        super().__init__("\n  | ".join([message, *quoted]))
        self.message = message
        self.quoted = tuple(quoted)


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


class ModelError(SparkcnnError):
    """A model is unknown, is not a sealed model, is damaged, or does not fit the images."""

    code = "model"
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


def first_line(error: BaseException) -> str:
    """What another library's exception says first, or its type where it says nothing.

    >>> first_line(ValueError("no such table\\n(Background on this error …)")), first_line(KeyError())
    ('no such table', 'KeyError')
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class ImageError(Exception):
    """One image cannot be used. It becomes a row among the rejects, never the end of a job.

    `code` is one of `IMAGE_ERROR_CODES`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


# Closed: whoever reads rejects may rely on it.
IMAGE_ERROR_CODES = {
    "empty_file": "the file has no bytes",
    "not_an_image": "its first bytes are those of no format that is read",
    "truncated": "it ends early, or is damaged within",
    "unsupported_mode": "a sound image of a kind that is not read: 32 bits a channel, an array that is no image",
    "too_many_pixels": "larger than the limit, or than image.resize none allows",
    "too_many_bytes": "the file is larger than the limit",
    "too_small": "a side is below the limit, or below what image.resize none asks for",
    "unknown_label": "its class is none of the set's",
    "missing_file": "a manifest, a shard or a listing names it, but it is not there",
    "unreadable": "anything else that keeps it from being read or decoded",
}
