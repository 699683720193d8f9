"""Class folders: DIR/CLASS/**/*.jpg, the layout of ImageNet and of most image collections on a disk.

Or DIR/{train,val,test}/CLASS/**/*.jpg, if the images are already divided.
"""

from collections.abc import Iterable

from cnnlib.image_set.splits import SPLITS

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")


def first_folder(relative_path: str) -> str | None:
    """Return the first folder of a path relative to DIR, or None for a file directly in DIR.

    >>> first_folder("cat/2021/a.jpg"), first_folder("a.jpg")
    ('cat', None)
    """
    folder, slash, _ = relative_path.partition("/")
    return folder if slash else None


def are_splits(folders: Iterable[str]) -> bool:
    """Return whether the folders in DIR are splits, and not classes. Give all that contain an image at any depth.

    They are splits if each is called train, val or test. If there is also a folder "bus", then "train" is a class.

    >>> are_splits(["train", "test"]), are_splits(["bus", "train"]), are_splits([])
    (True, False, False)
    """
    names = set(folders)
    return bool(names) and names <= set(SPLITS)


def class_and_split_of(relative_path: str, has_splits: bool) -> tuple[str | None, str | None]:
    """Return (class, given split) of a path relative to DIR; None for each that the path does not give.

    >>> class_and_split_of("train/cat/2021/a.jpg", True), class_and_split_of("train/a.jpg", True)
    (('cat', 'train'), (None, 'train'))
    >>> class_and_split_of("train/cat/a.jpg", False), class_and_split_of("a.jpg", True)
    (('train', None), (None, None))
    """
    first = first_folder(relative_path)
    if not has_splits or first is None:
        return first, None
    return first_folder(relative_path.removeprefix(f"{first}/")), first


def is_image_name(name: str) -> bool:
    """Return whether a file counts as an image, by its ending.

    >>> is_image_name("A.JPG"), is_image_name("notes.txt")
    (True, False)
    """
    return name.lower().endswith(SUFFIXES)


def is_hidden(relative_path: str) -> bool:
    """Return whether a file is hidden as on Unix: its name, or the name of a folder above it, begins with a dot.

    >>> is_hidden("cat/.a.jpg"), is_hidden(".ipynb_checkpoints/a.jpg"), is_hidden("cat/a.b.jpg")
    (True, True, False)
    """
    return any(part.startswith(".") for part in relative_path.split("/"))
