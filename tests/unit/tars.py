"""Make tar archives for tests with Python's own writer, and headers that no correct writer makes."""

import gzip
import io
import tarfile

LAYOUTS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def pack(*members: tuple[str, bytes] | tarfile.TarInfo, layout: int = tarfile.PAX_FORMAT) -> bytes:
    """Pack files, given as (name, content), and members without content."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=layout) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return packed.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """Make a member without content: a link, a folder or a device."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def header(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0) -> bytes:
    """Make one header block. Any size is possible, as GNU's numbers may be huge or negative."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")[-512:]


def padded(content: bytes) -> bytes:
    """Return the content filled with zeros to the end of its last block, as it follows its header."""
    return content + bytes(-len(content) % 512)


def pax(*records: tuple[str, str]) -> bytes:
    """Make a pax header with these records."""
    lines = []
    for key, value in records:
        line = f" {key}={value}\n".encode()
        length = len(line)
        while length != len(f"{length}".encode() + line):
            length = len(f"{length}".encode() + line)
        lines.append(f"{length}".encode() + line)
    content = b"".join(lines)
    return header("pax", tarfile.XHDTYPE, len(content)) + padded(content)


END = bytes(1024)


def gzipped(content: bytes) -> bytes:
    """Compress to the same bytes every time."""
    return gzip.compress(content, 1, mtime=0)


class Counting(io.BytesIO):
    """A file that counts the bytes read from it."""

    read_bytes = 0

    def read(self, size=-1):
        content = super().read(size)
        self.read_bytes += len(content)
        return content
