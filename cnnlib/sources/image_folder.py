"""Class folders: DIR/CLASS/**/*.jpg, the layout of ImageNet and of most collections on a disk.

Or DIR/{train,val,test}/CLASS/**/*.jpg, where somebody has divided the images already.
"""

from collections.abc import Iterable

from cnnlib.image_set.splits import SPLITS

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")


def class_of(relative_path: str) -> str | None:
    """Read the class off a path relative to DIR: its first folder, or None where it lies in DIR itself.

    >>> class_of("cat/2021/a.jpg"), class_of("a.jpg")
    ('cat', None)
    """
    folder, slash, _ = relative_path.partition("/")
    return folder if slash else None


def layout_of(top_level_folder_names: Iterable[str]) -> bool:
    """Say whether DIR's folders are splits rather than classes; name all that hold an image at any depth.

    They are where each is called train, val or test: a folder "bus" makes of "train" beside it a class.

    >>> layout_of(["train", "test"]), layout_of(["bus", "train"]), layout_of([])
    (True, False, False)
    """
    folders = set(top_level_folder_names)
    return bool(folders) and folders <= set(SPLITS)


def class_and_split_of(relative_path: str, has_splits: bool) -> tuple[str | None, str | None]:
    """Read (class, given split) off a path relative to DIR, None for what it does not say.

    >>> class_and_split_of("train/cat/2021/a.jpg", True), class_and_split_of("train/a.jpg", True)
    (('cat', 'train'), (None, 'train'))
    >>> class_and_split_of("train/cat/a.jpg", False), class_and_split_of("a.jpg", True)
    (('train', None), (None, None))
    """
    first = class_of(relative_path)
    if not has_splits or first is None:
        return first, None
    return class_of(relative_path.removeprefix(f"{first}/")), first


def is_image_name(name: str) -> bool:
    """Say whether a file counts as an image by its ending.

    >>> is_image_name("A.JPG"), is_image_name("notes.txt")
    (True, False)
    """
    return name.lower().endswith(SUFFIXES)


def is_hidden(relative_path: str) -> bool:
    """Say whether a file is hidden, as Unix has it: its name begins with a dot, or that of a folder above it.

    >>> is_hidden("cat/.a.jpg"), is_hidden(".ipynb_checkpoints/a.jpg"), is_hidden("cat/a.b.jpg")
    (True, True, False)
    """
    return any(part.startswith(".") for part in relative_path.split("/"))
