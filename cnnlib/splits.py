"""Which split an image belongs to: a stable hash of its content, so that adding images never moves an earlier one."""

import hashlib

TRAIN, VAL, TEST = "train", "val", "test"
SPLITS = (TRAIN, VAL, TEST)


def unit_interval(image_id: str, salt: str) -> float:
    """Map an id to [0, 1), evenly and for ever the same: the first 64 bits of SHA-256 of salt and id.

    >>> unit_interval("a", "x") == unit_interval("a", "x") != unit_interval("a", "y")
    True
    """
    digest = hashlib.sha256(f"{salt}:{image_id}".encode()).digest()
    # 53 bits are what a float holds exactly; more could round up to 1.0.
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def assign_split(image_id: str, *, given: str | None, val_fraction: float, test_fraction: float, salt: str) -> str:
    """Give the split of one image.

    `given` is the split that the source names, and stands; None leaves it to the hash. A source that sets test
    images apart gives None for the others, with `test_fraction` 0.

    >>> assign_split("a", given="test", val_fraction=0.1, test_fraction=0.1, salt="")
    'test'
    >>> assign_split("a", given=None, val_fraction=0.0, test_fraction=1.0, salt="")
    'test'
    """
    if given is not None:
        return given
    position = unit_interval(image_id, salt)
    if position < test_fraction:
        return TEST
    if position < test_fraction + val_fraction:
        return VAL
    return TRAIN
