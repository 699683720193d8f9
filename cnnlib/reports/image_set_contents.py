"""A tally and the set that it is of -> what the report shows, with the pictures of its examples."""

from collections.abc import Iterable

from cnnlib.image_set.contract import IMAGE, ImageSet, stored_pixels
from cnnlib.image_set.summary import LedgerSummary
from cnnlib.reports.image_set import Conflict, Reject, ReportContents, render_report
from cnnlib.reports.page import thumbnail
from cnnlib.storage.folder import REPORT, write_atomically
from cnnlib.storage.parts import row_groups_of

# Row groups are read for the pictures of samples; of more classes than this, the first have some.
CLASSES_SHOWN = 100

# (data file, row)
Place = tuple[str, int]


def write_report(image_set: ImageSet, tally: LedgerSummary) -> None:
    """Write report.html beside the set's dataset.json."""
    write_atomically(image_set.folder, REPORT, render_report(report_contents(image_set, tally)))


def has_report(image_set: ImageSet) -> bool:
    """Whether the report there is of this very set."""
    path = image_set.folder.path(REPORT)
    return image_set.folder.fs.exists(path) and image_set.fingerprint.encode() in image_set.folder.fs.cat_file(path)


def report_contents(image_set: ImageSet, tally: LedgerSummary) -> ReportContents:
    """Collect what the report shows; reads the row groups that hold its examples."""
    examples = tally.examples
    shown = [name for name in (image_set.classes or (None,)) if name in examples.kept][:CLASSES_SHOWN]
    samples = {name: [(part, row) for _, part, row in examples.kept[name]] for name in shown}
    conflicts = [rows for _, rows in sorted(examples.conflicts.items())]
    places = [place for group in samples.values() for place in group]
    places += [(part, row) for rows in conflicts for _, _, _, part, row in rows if part]
    pictures = thumbnails(image_set, places)
    return ReportContents(
        image_set=image_set,
        sizes=tally.sizes,
        samples={name or "": [pictures[place] for place in group] for name, group in samples.items()},
        rejects=tally.rejected,
        reject_examples={
            code: [Reject(path, message, picture) for path, message, picture in rows]
            for code, rows in examples.rejected.items()
        },
        conflicts=[
            Conflict(
                [(class_name, path) for class_name, path, *_ in rows],
                next((picture or pictures[part, row] for _, _, picture, part, row in rows if picture or part), None),
            )
            for rows in conflicts
        ],
        conflict_count=tally.conflicting,
    )


def thumbnails(image_set: ImageSet, places: Iterable[Place]) -> dict[Place, bytes]:
    """Pictures of rows of the set, by their places; each row group that has some is read once."""
    rows_of: dict[str, list[int]] = {}
    for part, row in places:
        rows_of.setdefault(part, []).append(row)
    pictures = {}
    for part, rows in rows_of.items():
        for first, table in row_groups_of(image_set.folder, part, rows, [IMAGE]):
            for row in rows:
                if first <= row < first + table.num_rows:
                    stored = table[IMAGE][row - first].as_py()
                    pictures[part, row] = thumbnail(stored_pixels(stored, image_set.image))
    return pictures
