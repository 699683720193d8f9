"""Errors of the decoder and the classifier. `cnnlib.errors` has all others, and hands these on."""

from collections.abc import Sequence


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


class ModelError(SparkcnnError):
    """A model is unknown, is not a sealed model, is damaged, or does not fit the images."""

    code = "model"
    exit_status = 2


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
