"""Labels as WebDataset's shards carry them: KEY.cls, a text, or KEY.json."""

import json

from cnnlib.errors import ImageError

# In this order: where a key has both, its .cls stands.
LABEL_SUFFIXES = ("cls", "json")
JSON_LABELS = ("label", "cls", "class")

MAX_LABEL_BYTES = 1 << 20
MAX_CLASS_NAME_CHARACTERS = 1000


def parse_label(content: bytes, suffix: str) -> str:
    """Read the class name off a .cls (its text) or a .json (a number, a text, or an object with one of JSON_LABELS).

    A number of whole value is written without a point. Raises ImageError(unknown_label).

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
        raise ImageError("unknown_label", f"the .json has a {type(value).__name__} for a label, no number or text")
    class_name = str(value).strip()
    if not _is_class_name(class_name):
        raise ImageError("unknown_label", f"the .{suffix} has no name of one line for a label: {class_name[:80]!a}")
    return class_name


def _is_class_name(text: str) -> bool:
    if not 0 < len(text) <= MAX_CLASS_NAME_CHARACTERS or len(text.splitlines()) > 1:
        return False
    # JSON can spell half of a surrogate pair, which is no text to Arrow.
    return not any("\ud800" <= character <= "\udfff" for character in text)
