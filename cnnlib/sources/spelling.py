"""Spellings of class names: names that look the same to people are usually meant to be one class.

They differ in case, in blanks around or within them, or in how accents are stored: macOS stores ü as u and two dots.
"""

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cnnlib.sources.labels import without_decimals

# A message names this many pairs.
_SHOWN = 5


@dataclass(frozen=True)
class Spelling:
    """The classes of some names.

    `class_of` maps a name to its class, if the class is called otherwise. `alike` are the groups of names that look the
    same, and are classes of their own.

    >>> Spelling.of(["cat", "Cat ", "dog"], joined=False).alike
    (('Cat ', 'cat'),)
    >>> Spelling.of(["cat", "Cat ", "dog"], joined=True)
    Spelling(classes=('Cat', 'dog'), class_of={'Cat ': 'Cat', 'cat': 'Cat'}, alike=())
    """

    classes: tuple[str, ...] = ()
    class_of: Mapping[str, str] = field(default_factory=dict)
    alike: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def of(cls, names: Iterable[str], *, joined: bool, whole_numbers: bool = False) -> "Spelling":
        """Group names that look the same. With `joined`, each group is one class, called by its first name in order.

        With `whole_numbers`, names that are all whole numbers lose the decimal point that some tools give them.

        >>> Spelling.of(["1.0", "10.0"], joined=False, whole_numbers=True)
        Spelling(classes=('1', '10'), class_of={'1.0': '1', '10.0': '10'}, alike=())
        """
        every = set(names)
        if whole_numbers and (numbers := without_decimals(every)):
            return cls(tuple(sorted({numbers.get(name, name) for name in every})), numbers)
        groups: dict[str, list[str]] = {}
        for name in sorted(every):
            groups.setdefault(_look(name), []).append(name)
        several = [group for group in groups.values() if len(group) > 1]
        if not joined:
            return cls(tuple(name for group in groups.values() for name in group), {}, tuple(map(tuple, several)))
        class_of = {name: _cleaned(group[0]) for group in several for name in group}
        classes = tuple(class_of.get(group[0], group[0]) for group in groups.values())
        return cls(classes, {name: of for name, of in class_of.items() if name != of}, ())

    def warning(self) -> str | None:
        """Return a sentence about names that look the same, or None if there are none."""
        if not self.alike:
            return None
        pairs = "; ".join(" and ".join(map(ascii, group)) for group in self.alike[:_SHOWN])
        more = f"; and {len(self.alike) - _SHOWN} more" if len(self.alike) > _SHOWN else ""
        return (
            f"some classes look the same but are spelled differently: {pairs}{more}; pass --source.join_spellings true "
            "to make one class of each"
        )


def _cleaned(name: str) -> str:
    """Return a name without blanks around it and with one blank between words; accents are composed.

    >>> _cleaned(" Ku\\u0308se  blau ")
    'Küse blau'
    """
    return " ".join(unicodedata.normalize("NFC", name).split())


def _look(name: str) -> str:
    """Return what a name has in common with those that look the same."""
    return _cleaned(name).casefold()
