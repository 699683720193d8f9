"""Class folders: DIR/CLASS/**/*.jpg, the layout of ImageNet and of most collections on a disk."""

SUFFIXES = (".jpg", ".jpeg", ".png")

# Spark's and Hadoop's globs know no case-insensitive match.
GLOB = "*.{" + ",".join("".join(f"[{c}{c.upper()}]" for c in suffix[1:]) for suffix in SUFFIXES) + "}"


def class_of(relative_path: str) -> str | None:
    """Read the class off a path relative to DIR: its first folder, or None where it lies in DIR itself.

    >>> class_of("cat/2021/a.jpg"), class_of("a.jpg")
    ('cat', None)
    """
    folder, slash, _ = relative_path.partition("/")
    return folder if slash else None


def is_image_name(name: str) -> bool:
    """Say whether a file counts as an image by its ending.

    >>> is_image_name("A.JPG"), is_image_name("notes.txt")
    (True, False)
    """
    return name.lower().endswith(SUFFIXES)


def is_hidden(relative_path: str) -> bool:
    """Say whether Spark's file listing passes over this path: a part of it begins with "." or "_".

    A name such as _size=3 is a partition's to Spark, and listed.

    >>> is_hidden("cat/_DSC0001.jpg"), is_hidden("cat/a_b.jpg"), is_hidden("cat/_size=3.jpg")
    (True, False, False)
    """
    return any(part.startswith(".") or (part.startswith("_") and "=" not in part) for part in relative_path.split("/"))
