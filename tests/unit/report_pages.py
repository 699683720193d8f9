"""Make contents of reports for the tests, and parse pages."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

from cnnlib.image_set.contract import Counts, ImageSet, Split
from cnnlib.reports.image_set import Conflict, Reject, ReportContents, render_report
from cnnlib.reports.page import thumbnail
from cnnlib.sealed.frozen.images import ImageSpec
from cnnlib.storage.folder import open_folder
from cnnlib.storage.parts import PartFile
from tests.unit.pictures import noise

HOSTILE = """</bdi></td></style><script>alert('x')</script><img src="http://evil.example" onerror='alert("x")'>&amp;"""
VOID = {"meta", "img", "br"}
GREY = ImageSpec(28, 28, 1)


def split_of(class_counts: Sequence[int], row_groups: int = 2) -> Split:
    rows = sum(class_counts)
    files = (PartFile("train/part-0", rows, 1_500_000, row_groups),) if rows else ()
    return Split(rows, tuple(class_counts), files)


def contents_of(
    classes: Sequence[str],
    train: Sequence[int],
    val: Sequence[int] | None = None,
    test: Sequence[int] | None = None,
    *,
    row_groups: int = 2,
    duplicate: int = 0,
    rejected: int = 0,
    spec: ImageSpec = GREY,
    settings: dict[str, Any] | None = None,
    **changes: Any,
) -> ReportContents:
    """Make the contents of a report from the images per class of each split. `changes` are other fields of it."""
    none = [0] * len(classes)
    splits = {
        "train": split_of(train, row_groups),
        "val": split_of(val or none, row_groups),
        "test": split_of(test or none, row_groups),
    }
    kept = sum(split.rows for split in splits.values())
    image_set = ImageSet(
        folder=open_folder("/sets/photos"),
        classes=tuple(classes),
        image=spec,
        counts=Counts(kept + duplicate + rejected, kept, duplicate, rejected),
        splits=splits,
        mean=(0.25, 0.5, 0.75)[: spec.channels],
        std=(0.125, 0.25, 0.375)[: spec.channels],
        settings=settings or {},
        fingerprint="0f" * 32,
    )
    empty = ReportContents(image_set, {(28, 28): kept}, {}, {}, {}, (), 0)
    return replace(empty, **changes)


def eventful() -> ReportContents:
    """Make contents with everything that a report can show, under hostile names and paths."""
    picture = thumbnail(noise(40, 60))
    names = (HOSTILE, "x" * 300, "لون\u202e", *(f"class {number}" for number in range(60)))
    return contents_of(
        names,
        train=[900, 0, *range(1, 62)],
        test=[5] * 63,
        row_groups=1,
        duplicate=4,
        rejected=12,
        spec=ImageSpec(96, 128, 3),
        settings={"source": {"path": HOSTILE}, "output": {"path": "p" * 900}},
        sizes={(375, 500): 700, (20, 900): 1, (500, 375): 299},
        samples={name: [picture] * 12 for name in names},
        rejects={"not_an_image": 9, "truncated": 3},
        reject_examples={
            "not_an_image": [Reject(HOSTILE, HOSTILE), Reject("a" * 900, "b" * 900)],
            "truncated": [Reject("odd\udcff\x00\x1b", "ends early", picture)],
        },
        conflicts=[
            Conflict([(HOSTILE, HOSTILE), ("class 1", "c" * 900)], picture),
            Conflict([("class 2", f"{number}.png") for number in range(30)]),
        ],
        conflict_count=5,
    )


class Page(HTMLParser):
    """The texts and tables of a page, by section. Parsing fails if the tags do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.section = ""
        self.text: dict[str, str] = defaultdict(str)
        self.rows: dict[str, list[list[str]]] = defaultdict(list)
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        named = self.note(tag, attributes)
        if tag == "section":
            self.section = named["id"]
        if tag == "tr":
            self.rows[self.section].append([])
        if tag in ("td", "th"):
            self.rows[self.section][-1].append("")

    def handle_startendtag(self, tag, attributes):
        # Only tags in SVG may close themselves.
        assert self.open[-1] == "svg"
        self.note(tag, attributes)

    def note(self, tag, attributes):
        named = dict(attributes)
        assert len(named) == len(attributes)
        self.tags.add(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]
        return named

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "section":
            self.section = ""

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text[self.section] += data
        if {"td", "th"} & set(self.open):
            self.rows[self.section][-1][-1] += data

    def says(self, section: str, words: str) -> bool:
        return words in " ".join(self.text[section].split())

    def values(self, tag: str, name: str) -> list[str]:
        return [value for one, key, value in self.attributes if (one, key) == (tag, name)]


def page_of(contents: ReportContents) -> Page:
    return Page(render_report(contents))
