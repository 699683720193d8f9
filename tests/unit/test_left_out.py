"""Files beside images that are left out: hidden ones, those of systems, and those that are no images."""

from collections import Counter

import pytest

from cnnlib.sources.left_out import HIDDEN, NO_ENDING, SYSTEM, ending_of, in_words, is_junk, why_left_out


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("cat/a.jpg", None),
        ("cat/a_b.c.jpg", None),
        ("cat/_a.jpg", None),
        ("_cat/a.jpg", None),
        ("cat/x_/a.jpg", None),
        ("./cat/a.jpg", None),
        ("thumbs/a.jpg", None),
        ("MACOSX/a.jpg", None),
        ("cat/my Thumbs.db.jpg", None),
        ("cat/.a.jpg", HIDDEN),
        ("cat/._a.jpg", HIDDEN),
        ("cat/.thumbnails/a.jpg", HIDDEN),
        ("cat/.ipynb_checkpoints/a-checkpoint.jpg", HIDDEN),
        ("cat/.DS_Store", HIDDEN),
        (".git/objects/a.png", HIDDEN),
        ("__MACOSX/cat/a.jpg", SYSTEM),
        ("photos/__MACOSX/a.jpg", SYSTEM),
        ("cat/Thumbs.db", SYSTEM),
        ("cat/thumbs.DB", SYSTEM),
        ("desktop.ini", SYSTEM),
        ("cat/@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", SYSTEM),
        ("$RECYCLE.BIN/a.jpg", SYSTEM),
        ("System Volume Information/x.png", SYSTEM),
        ("lost+found/a.jpg", SYSTEM),
    ],
)
def test_file_is_left_out_by_its_name(path, expected):
    assert why_left_out(path) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        # A manifest may name files below any folder, also hidden ones.
        ("/home/me/.cache/photos/a.jpg", False),
        ("s3://bucket/.staging/a.jpg", False),
        ("/data/.ipynb_checkpoints/a.jpg", True),
        ("file:///data/cat/._a.jpg", True),
        ("cat/.a.jpg", False),
    ],
)
def test_named_file_is_junk_only_if_a_system_made_it(path, expected):
    assert is_junk(path) is expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("cat/a.CR2", ".cr2"),
        ("cat/a.tar.gz", ".gz"),
        ("cat/README", NO_ENDING),
        ("cat.dir/README", NO_ENDING),
        ("a.", NO_ENDING),
        ("Mr. Smith and his cat", NO_ENDING),
    ],
)
def test_ending_is_in_lower_case(path, expected):
    assert ending_of(path) == expected


def test_many_kinds_are_shortened():
    kinds = Counter({f".{number:02d}": 20 - number for number in range(10)})
    assert in_words(kinds).startswith("155 files (20 .00, 19 .01, ")
    assert in_words(kinds).endswith(", 23 others)")
