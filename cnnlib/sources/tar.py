"""Read tar archives, gzipped or not, from start to end in bounded memory: POSIX (ustar, pax) and GNU tar.

Format: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Header Block"; GNU tar manual, "Basic Tar Format".

`tarfile` parses a single header, but its loop over the archive is not used. In some Pythons that run this, an archive
of a few KB makes that loop endless (CVE-2025-8194), makes it recurse, or makes its time (CVE-2024-6232) or memory grow
with the square of a header's size. It also keeps every member in memory, and it ignores the second of two archives that
were joined.
"""

import gzip
import io
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal, cast

from cnnlib.errors import ImageError
from cnnlib.sources.gzipped import MAGIC

BLOCK_BYTES = 512
# A pax header may have attributes of a file system, which are large; everything else in it is small.
MAX_EXTENDED_HEADER_BYTES = 1 << 20
MAX_NAME_BYTES = 4096  # PATH_MAX of Linux
MAX_MEMBER_BYTES = 1 << 62  # the largest distance that a file can seek

_ZEROS = bytes(BLOCK_BYTES)
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_EXTENDED = (*_PAX, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_LINKS = (tarfile.SYMTYPE, tarfile.LNKTYPE)
_FOLDERS_AND_DEVICES = (tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)


@dataclass(frozen=True)
class Member:
    r"""One member: its `name` in the archive (bytes that are not UTF-8 as \xff) and its `size` in bytes there.

    `kind` is "file", "link" (symbolic or hard), "sparse" (a file stored without its holes) or "other" (a folder, a
    device). Links and others have size 0.
    """

    name: str
    size: int
    kind: Literal["file", "link", "sparse", "other"]


def read_members(file: BinaryIO, wanted: Callable[[Member], bool]) -> Iterator[tuple[Member, bytes | None]]:
    """Yield each complete member of an archive, with its content if it is `wanted`, else with None.

    `file` must be seekable and at its start. Members that are not wanted are not read, unless the archive is gzipped.
    Raises ImageError after the last complete member: empty_file, truncated if the archive ends early, unreadable if it
    is damaged or not a tar archive.
    """
    gzipped = file.read(len(MAGIC)) == MAGIC
    file.seek(0)
    if not gzipped:
        yield from _read_members(file, wanted)
        return
    try:
        yield from _read_members(cast(BinaryIO, gzip.GzipFile(fileobj=file)), wanted)
    except EOFError as error:
        raise ImageError("truncated", "the gzip file ends early; download it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ImageError("unreadable", f"the gzip file is damaged ({error}); download it again") from error


def _read_members(file: BinaryIO, wanted: Callable[[Member], bool]) -> Iterator[tuple[Member, bytes | None]]:
    for member in _members(file):
        content = None
        if wanted(member):
            content = _read(file, member.size)
        else:
            _skip(file, member.size)
        yield member, content
        file.read(-member.size % BLOCK_BYTES)


def _members(file: BinaryIO) -> Iterator[Member]:
    """Yield each member when `file` is at the start of its content.

    Before it asks for the next member, the caller moves `file` behind the last block of the content.
    """
    start = file.read(BLOCK_BYTES)
    if not start:
        raise ImageError("empty_file", "the file has no bytes")
    try:
        _parse_header(start)
    except ImageError as error:
        if start.strip(b"\0"):
            raise ImageError("unreadable", f"this is not a tar archive; it begins with {start[:4].hex()}") from error
    file.seek(0)

    ended = False
    long_name, pax = b"", dict[bytes, bytes]()
    while block := file.read(BLOCK_BYTES):
        # Zeros end an archive, but another may follow: `cat a.tar b.tar` writes such a file.
        ended = block == _ZEROS[: len(block)]
        if ended:
            continue
        header = _parse_header(block)
        if header.type in _EXTENDED:
            content = _read_extended_header(file, header.size)
            if header.type == tarfile.GNUTYPE_LONGNAME:
                long_name = content.partition(b"\0")[0]
            elif header.type in _PAX:
                pax = _parse_pax(content)
            continue
        if header.type == tarfile.GNUTYPE_SPARSE:
            _skip_sparse_map(file, block)
        yield _to_member(header, long_name, pax)
        long_name, pax = b"", {}
    if not ended:
        raise ImageError("truncated", "the archive ends without tar's end mark; download or pack it again")


def _parse_header(block: bytes) -> tarfile.TarInfo:
    if len(block) < BLOCK_BYTES:
        raise _ends_early("a header")
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "backslashreplace")
    except tarfile.HeaderError as error:
        raise _damaged(str(error)) from error
    _check_size(header.size)
    return header


def _to_member(header: tarfile.TarInfo, long_name: bytes, pax: dict[bytes, bytes]) -> Member:
    raw_name = pax.get(b"GNU.sparse.name") or pax.get(b"path") or long_name
    if len(raw_name) > MAX_NAME_BYTES:
        raise _damaged(f"a name of {len(raw_name)} bytes")
    name = raw_name.decode("utf-8", "backslashreplace") or header.name
    if header.type in _LINKS:
        return Member(name, 0, "link")
    if header.type in _FOLDERS_AND_DEVICES:
        return Member(name, 0, "other")
    # POSIX says that members of unknown types are to be read as files.
    is_sparse = header.type == tarfile.GNUTYPE_SPARSE or any(key.startswith(b"GNU.sparse.") for key in pax)
    return Member(name, _to_size(pax[b"size"]) if b"size" in pax else header.size, "sparse" if is_sparse else "file")


def _parse_pax(content: bytes) -> dict[bytes, bytes]:
    """Parse records "LENGTH KEY=VALUE\\n"; LENGTH counts the whole record. Keep those about a member's name and size.

    >>> _parse_pax(b"12 path=a/b\\n20 mtime=1700000000\\n")
    {b'path': b'a/b'}
    """
    records = {}
    start = 0
    while start < len(content) and content[start]:
        # A length has few digits. Limit the search, or each would run through the rest of the header.
        length = _to_size(content[start : start + 20].partition(b" ")[0])
        record = content[start : start + length]
        key, equals, value = record.partition(b" ")[2].partition(b"=")
        if len(record) != length or not equals or not value.endswith(b"\n"):
            raise _damaged("a pax header without records")
        if key in (b"path", b"size") or key.startswith(b"GNU.sparse."):
            records[key] = value[:-1]
        start += length
    return records


def _to_size(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > 20:
        raise _damaged(f"{digits[:20]!r} is not a number")
    return _check_size(int(digits))


def _check_size(size: int) -> int:
    if not 0 <= size <= MAX_MEMBER_BYTES:
        raise _damaged(f"a size of {size} bytes")
    return size


def _read_extended_header(file: BinaryIO, size: int) -> bytes:
    if size > MAX_EXTENDED_HEADER_BYTES:
        raise _damaged(f"a header of {size} bytes")
    content = _read(file, size)
    file.read(-size % BLOCK_BYTES)
    return content


def _skip_sparse_map(file: BinaryIO, block: bytes) -> None:
    another_follows = block[482]
    while another_follows:
        another_follows = _read(file, BLOCK_BYTES)[504]


def _read(file: BinaryIO, size: int) -> bytes:
    content = file.read(size)
    if len(content) < size:
        raise _ends_early("a member")
    return content


def _skip(file: BinaryIO, size: int) -> None:
    if size:
        # Read the last byte, because only that shows that the file has it.
        file.seek(size - 1, io.SEEK_CUR)
        _read(file, 1)


def _ends_early(within: str) -> ImageError:
    return ImageError("truncated", f"the archive ends within {within}; download it again")


def _damaged(reason: str) -> ImageError:
    return ImageError(
        "unreadable", f"the archive is damaged ({reason}), and the rest cannot be read; download it again"
    )
