"""Errors of the decoder and the classifier. `cnnlib.errors` exports these and has all others."""

from collections.abc import Sequence


class SparkcnnError(Exception):
    """Base class of all errors that a user sees as one line.

    `message` says what is wrong, what was received and what to do. `quoted` has lines that another process wrote.
    """

    code = "error"
    exit_status = 1

    def __init__(self, message: str, quoted: Sequence[str] = ()) -> None:
        super().__init__("\n  | ".join([message, *quoted]))
        self.message = message
        self.quoted = tuple(quoted)


class ModelError(SparkcnnError):
    """A model is unknown, not a sealed model, damaged, or does not fit the images."""

    code = "model"
    exit_status = 2


def first_line(error: BaseException) -> str:
    """Return the first line of another library's exception, or the name of its type if it has no text.

    >>> first_line(ValueError("no such table\\n(Background on this error …)")), first_line(KeyError())
    ('no such table', 'KeyError')
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class ImageError(Exception):
    """One image cannot be used. It becomes a row among the rejects; it never ends a job.

    `code` is one of `IMAGE_ERROR_CODES`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


# The list is closed, so programs that read rejects may rely on it.
IMAGE_ERROR_CODES = {
    "empty_file": "the file has no bytes",
    "not_an_image": "its first bytes belong to no supported format",
    "truncated": "it ends early, or is damaged inside",
    "unsupported_mode": "an intact image of an unsupported kind: 32 bits per channel, an array of another form",
    "too_many_pixels": "larger than the limit, or than image.resize none allows",
    "too_many_bytes": "the file is larger than the limit",
    "too_small": "a side is below the limit, or smaller than image.resize none allows",
    "unknown_label": "its class is not one of the set's",
    "missing_file": "a manifest, a shard or a listing names it, but it does not exist",
    "unreadable": "it cannot be read or decoded for any other reason",
}
