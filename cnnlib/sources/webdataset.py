"""WebDataset's shards: tar archives of KEY.jpg with KEY.cls or KEY.json, the files of one key one after the other.

Format: T. Breuel, "The WebDataset Format", https://github.com/webdataset/webdataset. The names in an archive are
names: no file is ever opened by one.
"""

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from cnnlib.errors import ImageError
from cnnlib.sources.image_folder import is_image_name
from cnnlib.sources.shard_labels import LABEL_SUFFIXES, MAX_LABEL_BYTES, parse_label
from cnnlib.sources.tar import Member, read_members

SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz")
# The images of one key wait in memory for its label: so many at most, of so many bytes together.
MAX_KEY_IMAGES = 1000
MAX_KEY_BYTES = 64 << 20


@dataclass(frozen=True)
class ShardEntry:
    """One image of a shard, or what stands where one should be.

    `path` is the name in the archive, made distinct; `class_name` is None where the shard has none. Where `code` is
    set (one of `cnnlib.errors`, explained by `message`), the image cannot be used; `content` has its bytes if they
    could be read.
    """

    path: str
    size_bytes: int
    class_name: str | None = None
    code: str | None = None
    message: str | None = None
    content: bytes | None = field(default=None, repr=False)


def index_shard(file: BinaryIO, name: str, *, labelled: bool = True) -> Iterator[ShardEntry]:
    """Give the entries of a shard without their content; of an archive that is not gzipped, only labels are read.

    `file` is seekable and at its start. An archive that is damaged, cut short or none gives its whole images, and then
    an entry called `name` with the code empty_file, truncated or unreadable. Where not `labelled`, no label is looked
    at. Raises nothing but what `file` raises.
    """
    return _entries(file, name, labelled, max_bytes=None)


def read_shard(file: BinaryIO, name: str, max_bytes: int, *, labelled: bool = True) -> Iterator[ShardEntry]:
    """Give the entries of `index_shard` with their content, in the same order.

    An image of more than `max_bytes` is not read: its code is too_many_bytes. The same holds where the images of one
    key have more than that, and more than MAX_KEY_BYTES, together. Twice that much may be in memory: a key's images
    wait for its label, and the next key shows that it has none.
    """
    return _entries(file, name, labelled, max_bytes)


def is_shard_name(name: str) -> bool:
    """Say whether a file counts as a shard by its ending.

    >>> is_shard_name("train-000000.tar"), is_shard_name("A.TGZ"), is_shard_name("a.zip")
    (True, True, False)
    """
    return name.lower().endswith(SHARD_SUFFIXES)


def split_name(name: str) -> tuple[str, str]:
    """Divide a name at the first dot of its last part into key and suffix, the latter in small letters.

    >>> split_name("a.b/c.Seg.PNG"), split_name("c")
    (('a.b/c', 'seg.png'), ('c', ''))
    """
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return f"{folder}{slash}{stem}", suffix.lower()


@dataclass
class _Sample:
    """The files of one key met so far: images, and by suffix the labels with a class name or what is wrong there."""

    key: str
    images: list[ShardEntry] = field(default_factory=list)
    labels: dict[str, tuple[Member, str | ImageError]] = field(default_factory=dict)
    held_bytes: int = 0

    def entries(self) -> Iterator[ShardEntry]:
        found = next((self.labels[suffix] for suffix in LABEL_SUFFIXES if suffix in self.labels), None)
        if found is None:
            yield from self.images
            return
        member, label = found
        if not self.images:
            yield ShardEntry(member.name, member.size, None, "missing_file", "a label without an image of its key")
        for image in self.images:
            if isinstance(label, str):
                yield replace(image, class_name=label)
            else:
                yield image if image.code else replace(image, code=label.code, message=label.message)


def _entries(file: BinaryIO, name: str, labelled: bool, max_bytes: int | None) -> Iterator[ShardEntry]:
    met = Counter[int]()
    try:
        for sample in _samples(file, labelled, max_bytes):
            for entry in sample.entries():
                # By hash, for a shard may have millions of long names.
                met[hash(entry.path)] += 1
                copies = met[hash(entry.path)]
                yield entry if copies == 1 else replace(entry, path=f"{entry.path}#{copies}")
    except ImageError as error:
        yield ShardEntry(name, file.seek(0, io.SEEK_END), None, error.code, error.message)


def _samples(file: BinaryIO, labelled: bool, max_bytes: int | None) -> Iterator[_Sample]:
    """Group files of one key that follow each other. Raises what `read_members` does, after the last sample."""
    sample = _Sample("")
    problem = None

    def key_of(member: Member) -> str:
        return split_name(member.name)[0] if labelled else member.name

    def wanted(member: Member) -> bool:
        if member.kind != "file":
            return False
        if _is_label(member.name):
            return labelled and member.size <= MAX_LABEL_BYTES
        if max_bytes is None or not _is_image(member.name) or member.size > max_bytes:
            return False
        held_bytes = sample.held_bytes if sample.key == key_of(member) else 0
        return held_bytes + member.size <= max(max_bytes, MAX_KEY_BYTES)

    try:
        for member, content in read_members(file, wanted):
            if member.kind == "other" or not (_is_image(member.name) or (labelled and _is_label(member.name))):
                continue
            if sample.key != key_of(member) or len(sample.images) == MAX_KEY_IMAGES:
                yield sample
                sample = _Sample(key_of(member))
            if _is_image(member.name):
                sample.images.append(_to_entry(member, content, max_bytes))
                sample.held_bytes += len(content or b"")
            else:
                suffix, label = split_name(member.name)[1], _to_label(member, content)
                _, earlier = sample.labels.setdefault(suffix, (member, label))
                if earlier != label:
                    differ = ImageError("unknown_label", f"the key has two .{suffix} that differ")
                    sample.labels[suffix] = member, differ
    except ImageError as error:
        problem = error
    yield sample
    if problem is not None:
        raise problem


def _is_image(name: str) -> bool:
    return is_image_name(name) and not _is_attributes(name)


def _is_label(name: str) -> bool:
    return split_name(name)[1] in LABEL_SUFFIXES and not _is_attributes(name)


def _is_attributes(name: str) -> bool:
    # macOS's tar packs what its file system knows of a.jpg as ._a.jpg.
    return name.rpartition("/")[2].startswith("._")


def _to_entry(member: Member, content: bytes | None, max_bytes: int | None) -> ShardEntry:
    problem = None
    if member.name.startswith("/") or ".." in member.name.split("/"):
        problem = ("unreadable", "its name leads out of the archive")
    elif member.kind == "link":
        problem = ("unreadable", "a link, which is not followed")
    elif member.kind == "sparse":
        problem = ("unreadable", "a sparse file; pack the shard without --sparse")
    elif not member.size:
        problem = ("empty_file", "the file has no bytes")
    elif max_bytes is not None and member.size > max_bytes:
        problem = ("too_many_bytes", f"{member.size} bytes exceed the limit of {max_bytes}")
    elif max_bytes is not None and content is None:
        limit = max(max_bytes, MAX_KEY_BYTES)
        problem = ("too_many_bytes", f"with it, the images of its key exceed {limit} bytes; give each a key of its own")
    if problem is not None:
        return ShardEntry(member.name, member.size, None, *problem)
    return ShardEntry(member.name, member.size, content=content)


def _to_label(member: Member, content: bytes | None) -> str | ImageError:
    suffix = split_name(member.name)[1]
    if content is None:
        return ImageError("unknown_label", f"the .{suffix} is a link, sparse, or has more than {MAX_LABEL_BYTES} bytes")
    try:
        return parse_label(content, suffix)
    except ImageError as error:
        return error
