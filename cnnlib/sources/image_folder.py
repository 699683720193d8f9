"""Class folders: DIR/CLASS/**/*.jpg, the layout of ImageNet and of most image collections on a disk.

Or DIR/SPLIT/CLASS/**/*.jpg, if the images are already divided. Names alone do not always tell which of both it is: a
class may be called "train". So `find_layout` looks at the whole tree, and refuses what is not certain.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cnnlib.config.sources import FolderNames
from cnnlib.errors import SourceError
from cnnlib.image_set.splits import SPLITS, split_called, split_in

# Files with these endings count as images. The first bytes of all others decide.
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpf", ".jpx", ".avif", ".heic", ".heif"),
)

# A message names this many folders.
_SHOWN = 8


def is_image_name(name: str) -> bool:
    """Return whether a file counts as an image, by its ending; blanks after it do not matter.

    >>> is_image_name("A.JPG "), is_image_name("notes.txt")
    (True, False)
    """
    return name.rstrip().lower().endswith(SUFFIXES)


def first_folder(relative_path: str) -> str | None:
    """Return the first folder of a path relative to DIR, or None for a file directly in DIR.

    >>> first_folder("cat/2021/a.jpg"), first_folder("a.jpg")
    ('cat', None)
    """
    folder, slash, _ = relative_path.partition("/")
    return folder if slash else None


@dataclass(frozen=True)
class FolderLayout:
    """Which folders in DIR are splits.

    `splits` maps the names of folders in DIR to splits. If it is empty, all folders in DIR are classes.

    >>> FolderLayout({"Train": "train"}).class_and_split_of("Train/cat/2021/a.jpg")
    ('cat', 'train')
    >>> FolderLayout().class_and_split_of("train/cat/a.jpg"), FolderLayout().class_and_split_of("a.jpg")
    (('train', None), (None, None))
    """

    splits: Mapping[str, str] = field(default_factory=dict)

    def class_and_split_of(self, relative_path: str) -> tuple[str | None, str | None]:
        """Return (class, given split) of a path relative to DIR; None for each that the path does not give."""
        first = first_folder(relative_path)
        if not self.splits or first is None:
            return first, None
        return first_folder(relative_path.removeprefix(f"{first}/")), self.splits.get(first)

    def is_beside_splits(self, relative_path: str) -> bool:
        """Return whether the folders in DIR are splits, and a file is in a folder beside them.

        >>> FolderLayout({"train": "train"}).is_beside_splits("unlabeled/a.jpg")
        True
        """
        first = first_folder(relative_path)
        return bool(self.splits) and first is not None and first not in self.splits


def find_layout(paths: Iterable[str], asked: FolderNames, path: str, *, labelled: bool = True) -> FolderLayout:
    """Find out whether the folders in DIR are splits or classes; `paths` are those of all images, relative to DIR.

    `path` is DIR, for the messages. Without `labelled`, what is not certain counts as classes, which nobody reads then.
    Raises SourceError if it is not certain, and if all images are in one folder that has the class folders.

    >>> find_layout(["Train/cat/a.jpg", "valid/cat/a.jpg"], "auto", "photos")
    FolderLayout(splits={'Train': 'train', 'valid': 'val'})
    >>> find_layout(["train/a.jpg", "bus/a.jpg"], "auto", "vehicles")
    FolderLayout(splits={})
    >>> find_layout(["train/cat/a.jpg", "other/cat/a.jpg"], "auto", "photos")
    Traceback (most recent call last):
      ...
    cnnlib.errors.SourceError: source.path=photos has the folders other, train: it is not certain ...
    """
    tree = _Folder.of(paths)
    layout = FolderLayout({} if asked == "classes" else _splits_of(tree, asked, path, labelled))
    if labelled and asked != "classes":
        _refuse_wrapper(tree, layout, path)
    return layout


def splits_by_name(names: Collection[str], asked: FolderNames, path: str, *, labelled: bool = True) -> dict[str, str]:
    """Return the split of each name, or nothing if names do not tell splits: for files that are not in class folders.

    One name in a longer one tells nothing if no other name tells another split. Raises SourceError if some names are
    those of splits, and others are not; without `labelled`, nobody reads the splits, and the result is empty then.

    >>> splits_by_name(["train-0.tar", "val-0.tar"], "auto", "shards")
    {'train-0.tar': 'train', 'val-0.tar': 'val'}
    >>> splits_by_name(["train-0.tar", "train-1.tar"], "auto", "shards")
    {}
    """
    if asked == "classes":
        return {}
    found = {name: split for name in names if (split := split_called(name) or split_in(name)) is not None}
    if asked == "splits":
        return _asked_splits(found, names, path)
    several, all_found = len(set(found.values())) > 1, found.keys() == set(names)
    if not all_found and labelled and (several or any(map(split_called, names))):
        raise _not_certain(path, names, found)
    return found if all_found and (several or all(map(split_called, names))) else {}


@dataclass
class _Folder:
    """A folder with images somewhere below it."""

    folders: dict[str, "_Folder"] = field(default_factory=dict)
    has_images: bool = False

    @classmethod
    def of(cls, paths: Iterable[str]) -> "_Folder":
        root = cls()
        for path in paths:
            folder = root
            for name in path.split("/")[:-1]:
                folder = folder.folders.setdefault(name, cls())
            folder.has_images = True
        return root

    @property
    def is_wrapper(self) -> bool:
        """Whether it has several folders, and no image beside them."""
        return len(self.folders) > 1 and not self.has_images

    def only_way_down(self) -> tuple[list[str], "_Folder"]:
        """Go down while there is one folder and no image. Return the names on the way, and the folder at its end."""
        way: list[str] = []
        folder = self
        while len(folder.folders) == 1 and not folder.has_images:
            ((name, folder),) = folder.folders.items()
            way.append(name)
        return way, folder


def _splits_of(tree: _Folder, asked: FolderNames, path: str, labelled: bool) -> dict[str, str]:
    tops = tree.folders
    exact = {name: split for name in tops if (split := split_called(name)) is not None}
    similar = exact | {name: split for name in tops if name not in exact and (split := split_in(name)) is not None}
    if asked == "splits":
        return _asked_splits(similar, tops, path)
    each_once = len(set(exact.values())) == len(exact)
    if tops and exact.keys() == tops.keys() and each_once and any(tops[name].folders for name in exact):
        return exact
    all_similar = bool(tops) and similar.keys() == tops.keys()
    several = len(set(similar.values())) > 1
    looks_like_splits = (
        any(tops[name].folders for name in exact)
        or len(set(exact.values())) > 1
        or (bool(exact) and all_similar)
        or (several and (all_similar or _have_common_folder(tops, similar)))
    )
    if not looks_like_splits:
        return {}
    if not labelled:
        return exact if exact.keys() == tops.keys() else {}
    raise _not_certain(path, tops, similar)


def _asked_splits(found: dict[str, str], names: Collection[str], path: str) -> dict[str, str]:
    if not found:
        raise SourceError(
            f"source.layout=splits, but none of {_shown(names)} in {path} is called like a split; use names such as "
            f"{', '.join(SPLITS)}, or leave source.layout out"
        )
    return found


def _have_common_folder(tops: Mapping[str, _Folder], split_of: Mapping[str, str]) -> bool:
    """Return whether folders of different splits have a folder of the same name, as train2017/cat and val2017/cat."""
    by_split: dict[str, set[str]] = {}
    for name, split in split_of.items():
        by_split.setdefault(split, set()).update(tops[name].folders)
    seen: set[str] = set()
    for folders in by_split.values():
        if seen & folders:
            return True
        seen |= folders
    return False


def _not_certain(path: str, names: Collection[str], similar: Mapping[str, str]) -> SourceError:
    splits = ", ".join(f"{name} is {split}" for name, split in sorted(similar.items())[:_SHOWN])
    others = sorted(set(names) - similar.keys())
    left_out = f"; {_shown(others)} would be left out" if others else ""
    return SourceError(
        f"source.path={path} has the folders {_shown(names)}: it is not certain whether these are splits or classes; "
        f"pass --source.layout splits ({splits}{left_out}) or --source.layout classes (each folder is a class)"
    )


def _refuse_wrapper(tree: _Folder, layout: FolderLayout, path: str) -> None:
    """Raise SourceError if the folders that should be classes are one wrapper around the class folders."""
    if not layout.splits:
        way, folder = tree.only_way_down()
        if way and folder.is_wrapper:
            raise SourceError(
                f"source.path={path} has one folder, {way[0]}, so all images would be of one class; name the folder "
                f"that has the class folders: --source.path {path.rstrip('/')}/{'/'.join(way)}, or pass "
                "--source.layout classes if they are one class"
            )
        return
    ways = {name: tree.folders[name].only_way_down() for name in layout.splits}
    if all(way and folder.is_wrapper for way, folder in ways.values()):
        name, (way, folder) = next(iter(ways.items()))
        raise SourceError(
            f"source.path={path} has one folder in each split, such as {name}/{way[0]}, so all images of a split would "
            f"be of one class; move the folders {_shown(folder.folders)} from {name}/{'/'.join(way)} up into {name}"
        )


def _shown(names: Iterable[str]) -> str:
    """List names for a message.

    >>> _shown(["b", "a"])
    'a, b'
    """
    every: Sequence[str] = sorted(names)
    more = len(every) - _SHOWN
    return ", ".join(every[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
