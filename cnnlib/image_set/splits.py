"""Which split an image belongs to: a stable hash of its pixels, so that adding images never moves an earlier one."""

import hashlib

TRAIN, VAL, TEST = "train", "val", "test"
SPLITS = (TRAIN, VAL, TEST)


def unit_interval(key: str, salt: str) -> float:
    """Map a key to [0, 1), evenly and for ever the same: the first 53 bits of SHA-256 of salt and key.

    >>> unit_interval("a", "x") == unit_interval("a", "x") != unit_interval("a", "y")
    True
    """
    digest = hashlib.sha256(f"{salt}:{key}".encode()).digest()
    # 53 bits are what a float holds exactly; more could round up to 1.0.
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def split_key(pixel_id: str, group: str | None) -> str:
    """What an image's split depends on: its pixels, or the group that must stay together.

    >>> split_key("8f3a", None), split_key("8f3a", "patient 7")
    ('8f3a', 'group patient 7')
    """
    return pixel_id if group is None else f"group {group}"


def assign_split(key: str, *, given: str | None, val_fraction: float, test_fraction: float, salt: str) -> str:
    """Give the split of one image by its `split_key`.

    `given` is the split that the source names, and stands; None leaves it to the hash. Where a source sets test images
    apart, `test_fraction` is 0 for the others: what it would have had is trained on, and all else stays where it is.

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
