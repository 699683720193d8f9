"""WebDataset's shards: tar archives of KEY.jpg with KEY.cls or KEY.json, in which the files of a key follow each other.

Format: T. Breuel, "The WebDataset Format", https://github.com/webdataset/webdataset. A name in an archive is only a
name: no file is ever opened by it.
"""

import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from cnnlib.errors import ImageError
from cnnlib.sources.image_folder import is_image_name
from cnnlib.sources.left_out import ending_of, why_left_out
from cnnlib.sources.tar import Member, read_members

SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz")
# The images of one key wait in memory for its label: at most this many, with this many bytes in total.
MAX_KEY_IMAGES = 1000
MAX_KEY_BYTES = 64 << 20

# KEY.cls has the label as text. If a key has both files, the first of these counts.
LABEL_SUFFIXES = ("cls", "json")
JSON_LABELS = ("label", "cls", "class")
MAX_LABEL_BYTES = 1 << 20
MAX_CLASS_NAME_CHARACTERS = 1000


@dataclass(frozen=True)
class ShardEntry:
    """One image of a shard, or the reason why there is none.

    `path` is the name in the archive, made unique in the shard. `class_name` is None if the shard has no label for it.
    If `code` is set, the image cannot be used, and `message` says why; `IMAGE_ERROR_CODES` in `cnnlib.errors` lists the
    codes. `content` has the bytes if they were read.
    """

    path: str
    size_bytes: int
    class_name: str | None = None
    code: str | None = None
    message: str | None = None
    content: bytes | None = field(default=None, repr=False)


def index_shard(
    file: BinaryIO, name: str, *, labelled: bool = True, left_out: Counter[str] | None = None
) -> Iterator[ShardEntry]:
    """Yield the entries of a shard without their content. If the archive is not gzipped, only labels are read.

    `left_out` counts the files that are neither images nor labels, by reason or ending.

    `file` must be seekable and at its start. If it is damaged, ends early or is not an archive, its complete images are
    followed by an entry called `name` with the code empty_file, truncated or unreadable. Without `labelled`, labels are
    ignored. Raises only the errors of `file` itself.
    """
    return _entries(file, name, labelled, None, Counter() if left_out is None else left_out)


def read_shard(file: BinaryIO, name: str, max_bytes: int, *, labelled: bool = True) -> Iterator[ShardEntry]:
    """Yield the entries of `index_shard` with their content, in the same order.

    An image of more than `max_bytes` is not read and gets the code too_many_bytes. So does an image with which the
    images of its key exceed both `max_bytes` and MAX_KEY_BYTES in total. Twice that much may be in memory: the images
    of a key wait for its label, until the first image of the next key is read.
    """
    return _entries(file, name, labelled, max_bytes, Counter())


def is_shard_name(name: str) -> bool:
    """Return whether a file counts as a shard, by its ending.

    >>> is_shard_name("train-000000.tar"), is_shard_name("A.TGZ"), is_shard_name("a.zip")
    (True, True, False)
    """
    return name.lower().endswith(SHARD_SUFFIXES)


def split_name(name: str) -> tuple[str, str]:
    """Split a name into key and suffix, at the first dot after the last slash. The suffix is returned in lower case.

    >>> split_name("a.b/c.Seg.PNG"), split_name("c")
    (('a.b/c', 'seg.png'), ('c', ''))
    """
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return f"{folder}{slash}{stem}", suffix.lower()


def parse_label(content: bytes, suffix: str) -> str:
    """Return the class name in a .cls (its text) or a .json (a number, a text, or an object with one of JSON_LABELS).

    A whole number is returned without a decimal point. Raises ImageError(unknown_label) if there is no class name.

    >>> parse_label(b"7", "cls"), parse_label(b'{"label": 7.0, "width": 96}', "json"), parse_label(b'"cat"', "json")
    ('7', '7', 'cat')
    """
    try:
        value = json.loads(content) if suffix == "json" else content.decode("utf-8-sig")
    except (ValueError, RecursionError) as error:
        raise ImageError("unknown_label", f"the .{suffix} cannot be parsed: {error}") from error
    if isinstance(value, dict):
        found = next((key for key in JSON_LABELS if key in value), None)
        if found is None:
            raise ImageError("unknown_label", f"the .json has none of {', '.join(JSON_LABELS)}")
        value = value[found]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int | str) or isinstance(value, bool):
        raise ImageError("unknown_label", f"the label in the .json is a {type(value).__name__}, not a number or a text")
    class_name = str(value).strip()
    if not _is_class_name(class_name):
        raise ImageError("unknown_label", f"the label in the .{suffix} is not a name of one line: {class_name[:80]!a}")
    return class_name


def _is_class_name(text: str) -> bool:
    if not 0 < len(text) <= MAX_CLASS_NAME_CHARACTERS or len(text.splitlines()) > 1:
        return False
    # JSON can have half of a surrogate pair, which Arrow does not accept as text.
    return not any("\ud800" <= character <= "\udfff" for character in text)


@dataclass
class _Sample:
    """The files of one key that were read so far.

    `labels` has by suffix the member and its class name, or the error in it.
    """

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
            yield ShardEntry(
                member.name, member.size, None, "missing_file", "it is a label without an image of the same key"
            )
        for image in self.images:
            if isinstance(label, str):
                yield replace(image, class_name=label)
            else:
                yield image if image.code else replace(image, code=label.code, message=label.message)


def _entries(
    file: BinaryIO, name: str, labelled: bool, max_bytes: int | None, left_out: Counter[str]
) -> Iterator[ShardEntry]:
    seen = Counter[int]()
    try:
        for sample in _samples(file, labelled, max_bytes, left_out):
            for entry in sample.entries():
                # Count hashes: a shard may have millions of long names.
                seen[hash(entry.path)] += 1
                copies = seen[hash(entry.path)]
                yield entry if copies == 1 else replace(entry, path=f"{entry.path}#{copies}")
    except ImageError as error:
        yield ShardEntry(name, file.seek(0, io.SEEK_END), None, error.code, error.message)


def _samples(file: BinaryIO, labelled: bool, max_bytes: int | None, left_out: Counter[str]) -> Iterator[_Sample]:
    """Group the files of one key that follow each other. Raises the errors of `read_members`, after the last sample."""
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
            if member.kind == "other":
                continue
            if not _is_image(member.name) and not _is_label(member.name):
                left_out[why_left_out(member.name) or ending_of(member.name)] += 1
                continue
            if not labelled and _is_label(member.name):
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
                    differ = ImageError("unknown_label", f"the key has two .{suffix} files that differ")
                    sample.labels[suffix] = member, differ
    except ImageError as error:
        problem = error
    yield sample
    if problem is not None:
        raise problem


def _is_image(name: str) -> bool:
    return is_image_name(name) and why_left_out(name) is None


def _is_label(name: str) -> bool:
    return split_name(name)[1] in LABEL_SUFFIXES and why_left_out(name) is None


def _to_entry(member: Member, content: bytes | None, max_bytes: int | None) -> ShardEntry:
    problem = None
    if member.name.startswith("/") or ".." in member.name.split("/"):
        problem = ("unreadable", "its name leads out of the archive")
    elif member.kind == "link":
        problem = ("unreadable", "it is a link, and links are not followed")
    elif member.kind == "sparse":
        problem = ("unreadable", "it is a sparse file; pack the shard without --sparse")
    elif not member.size:
        problem = ("empty_file", "the file has no bytes")
    elif max_bytes is not None and member.size > max_bytes:
        problem = ("too_many_bytes", f"{member.size} bytes exceed the limit of {max_bytes}")
    elif max_bytes is not None and content is None:
        limit = max(max_bytes, MAX_KEY_BYTES)
        problem = (
            "too_many_bytes",
            f"with it, the images of its key exceed {limit} bytes; give each image its own key",
        )
    if problem is not None:
        return ShardEntry(member.name, member.size, None, *problem)
    return ShardEntry(member.name, member.size, content=content)


def _to_label(member: Member, content: bytes | None) -> str | ImageError:
    suffix = split_name(member.name)[1]
    if content is None:
        return ImageError(
            "unknown_label", f"the .{suffix} is a link, is sparse, or has more than {MAX_LABEL_BYTES} bytes"
        )
    try:
        return parse_label(content, suffix)
    except ImageError as error:
        return error
