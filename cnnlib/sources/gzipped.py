"""Gzip, in which the classic data sets are published. The first bytes tell it, because names are often wrong."""

import gzip
import zlib

from cnnlib.errors import SourceError

MAGIC = b"\x1f\x8b"


def unzip(content: bytes, name: str) -> bytes:
    """Return the bytes of a file, unzipped if they are gzipped. `name` is for the error message.

    Raises SourceError if the gzip is damaged.

    >>> unzip(gzip.compress(b"IDX"), "a"), unzip(b"IDX", "b")
    (b'IDX', b'IDX')
    """
    if not content.startswith(MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{name} is a damaged gzip file ({error}); download it again") from error
