"""Gzip as the classic data sets are published in: told by the first bytes, as names are often wrong about it."""

import gzip
import zlib

from cnnlib.errors import SourceError

MAGIC = b"\x1f\x8b"


def unzip(content: bytes, name: str) -> bytes:
    """Give the bytes of a file, unzipped where they are gzipped.

    Raises SourceError where the gzip is damaged.

    >>> unzip(gzip.compress(b"IDX"), "a"), unzip(b"IDX", "b")
    (b'IDX', b'IDX')
    """
    if not content.startswith(MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{name} is a damaged gzip file ({error}); fetch it again") from error
