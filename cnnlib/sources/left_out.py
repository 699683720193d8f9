"""Files that lie beside images but are none: a source leaves them out before it reads anything, and counts them.

Operating systems, archive programs and notebooks put files into folders of images, some of them with the names of
images: macOS writes `._a.jpg` beside `a.jpg`, or a second tree `__MACOSX/`; Jupyter keeps copies in
`.ipynb_checkpoints/`. Other files belong to the people who made the collection: notes, tables, annotations.
"""

import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Mapping

HIDDEN = "hidden"
SYSTEM = "system files"
IN_NO_SPLIT = "in no split"
NO_ENDING = "no ending"

# Names that systems give, and never people: of files, and of folders. Java's patterns have the same syntax.
JUNK = (
    r"(?i)(^|/)(__MACOSX|\.ipynb_checkpoints|\.Trash[^/]*|\.Spotlight-V100|\.fseventsd|@eaDir|#recycle|\$RECYCLE\.BIN"
    r"|System Volume Information|lost\+found)/"
    r"|(^|/)(\._[^/]*|\.DS_Store|\.AppleDouble|Thumbs\.db|ehthumbs(_vista)?\.db|desktop\.ini|Icon\r|\.nfs[0-9a-f]+)$"
)
_JUNK = re.compile(JUNK)
# Raw images of cameras. Their first bytes are those of TIFF, but what TIFF readers find there is a thumbnail.
RAW_ENDINGS = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc", ".mef", ".mos", ".mrw"),
    *(".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
)
# An ending that is longer is a part of a name, as in "Mr. Smith".
_MAX_ENDING = 12
# A message names at most this many kinds of files; it adds the rest up as others.
_KINDS_SHOWN = 8


def is_junk(path: str) -> bool:
    """Return whether a system made the file, by its name or by a folder above it.

    >>> is_junk("cat/._a.jpg"), is_junk("__MACOSX/cat/a.jpg"), is_junk("Thumbs.db"), is_junk("/home/me/.data/a.jpg")
    (True, True, True, False)
    """
    return _JUNK.search(path) is not None


def is_hidden(relative_path: str) -> bool:
    """Return whether a file is hidden as on Unix: its name, or the name of a folder above it, begins with a dot.

    >>> is_hidden("cat/.a.jpg"), is_hidden(".cache/a.jpg"), is_hidden("./cat/a.b.jpg")
    (True, True, False)
    """
    return any(part.startswith(".") and part not in (".", "..") for part in relative_path.split("/"))


def why_left_out(relative_path: str) -> str | None:
    """Return HIDDEN or SYSTEM if a file is left out by its name alone, else None.

    >>> why_left_out("cat/.a.jpg"), why_left_out("cat/Thumbs.db"), why_left_out("cat/notes.txt")
    ('hidden', 'system files', None)
    """
    if is_hidden(relative_path):
        return HIDDEN
    return SYSTEM if is_junk(relative_path) else None


def ending_of(path: str) -> str:
    """Return the ending of a file's name in lower case, or NO_ENDING.

    >>> ending_of("cat/a.b.TXT"), ending_of("cat/README"), ending_of("Mr. Smith and his cat")
    ('.txt', 'no ending', 'no ending')
    """
    ending = posixpath.splitext(path)[1].strip().lower()
    return ending if 1 < len(ending) <= _MAX_ENDING else NO_ENDING


def in_words(left_out: Mapping[str, int]) -> str:
    """Describe the files that were left out, given their number by kind; the most frequent kinds first.

    >>> in_words({"hidden": 60, ".txt": 1})
    '61 files (60 hidden, 1 .txt)'
    """
    kinds = Counter(left_out).most_common()
    shown = [f"{count:,} {kind}" for kind, count in kinds[:_KINDS_SHOWN]]
    if len(kinds) > _KINDS_SHOWN:
        shown.append(f"{sum(count for _, count in kinds[_KINDS_SHOWN:]):,} others")
    total = sum(left_out.values())
    return f"{total:,} file{'s' if total != 1 else ''} ({', '.join(shown)})"


def count_kinds(kinds: Iterable[str]) -> Counter[str]:
    """Count files by the reason or ending for which they are left out, in an order that does not depend on theirs."""
    return Counter(dict(sorted(Counter(kinds).items())))
