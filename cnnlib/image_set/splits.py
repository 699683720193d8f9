"""The split of an image: a stable hash of its pixels decides it, so adding images never moves an earlier one."""

import hashlib
import re

TRAIN, VAL, TEST = "train", "val", "test"
SPLITS = (TRAIN, VAL, TEST)

# The names that people give to the splits, in lower case.
USUAL_NAMES = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VAL,
    "valid": VAL,
    "validation": VAL,
    "validate": VAL,
    "dev": VAL,
    "eval": VAL,
    "evaluation": VAL,
    "test": TEST,
    "testing": TEST,
}


def split_called(name: str) -> str | None:
    """Return the split that people mean by a name, in any case, or None if it is not a usual name of one.

    >>> split_called("Validation"), split_called(" TEST "), split_called("cat")
    ('val', 'test', None)
    """
    return USUAL_NAMES.get(name.strip().lower())


def split_in(name: str) -> str | None:
    """Return the split that a longer name contains as a word, or None if it contains none, or several.

    >>> split_in("train2017"), split_in("TestSet"), split_in("imagenet-val-0001")
    ('train', 'test', 'val')
    >>> split_in("train-test"), split_in("latest")
    (None, None)
    """
    # A capital letter after a small one begins a word, so trainSet becomes train Set.
    words = re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name))
    found = {USUAL_NAMES[word.lower()] for word in words if word.lower() in USUAL_NAMES}
    return found.pop() if len(found) == 1 else None


def unit_interval(key: str, salt: str) -> float:
    """Map a key to [0, 1), evenly and always to the same number: the first 53 bits of SHA-256 of salt and key.

    >>> unit_interval("a", "x") == unit_interval("a", "x") != unit_interval("a", "y")
    True
    """
    digest = hashlib.sha256(f"{salt}:{key}".encode()).digest()
    # A float holds 53 bits exactly; more bits could round up to 1.0.
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def split_key(pixel_id: str, group: str | None) -> str:
    """Return the text that decides an image's split: the id of its pixels, or its group, which must stay in one split.

    >>> split_key("8f3a", None), split_key("8f3a", "patient 7")
    ('8f3a', 'group patient 7')
    """
    return pixel_id if group is None else f"group {group}"


def assign_split(key: str, *, given: str | None, val_fraction: float, test_fraction: float, salt: str) -> str:
    """Return the split of one image, by its `split_key`.

    If the source gives a split, `given`, it is returned. If the source has test images of its own, pass 0 as
    `test_fraction` for the others: images that would be in test are then in train, and all others stay where they are.

    >>> assign_split("a", given="test", val_fraction=0.1, test_fraction=0.1, salt="")
    'test'
    >>> assign_split("a", given=None, val_fraction=0.0, test_fraction=1.0, salt="")
    'test'
    """
    if given is not None:
        return given
    position = unit_interval(key, salt)
    if position < val_fraction:
        return VAL
    if position < val_fraction + test_fraction:
        return TEST
    return TRAIN
