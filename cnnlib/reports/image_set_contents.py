"""Collect the contents of an image set's report from its ledger summary, and write the report."""

from collections.abc import Iterable

from cnnlib.image_set.contract import IMAGE, ImageSet, stored_pixels
from cnnlib.image_set.summary import LedgerSummary
from cnnlib.reports.image_set import Conflict, Reject, ReportContents, render_report
from cnnlib.reports.page import thumbnail
from cnnlib.storage.folder import REPORT, write_atomically
from cnnlib.storage.parts import row_groups_with

# The pictures of samples need row groups to be read, so only this many classes have samples, in label order.
CLASSES_SHOWN = 100

# (part file, row in it)
RowKey = tuple[str, int]


def write_report(image_set: ImageSet, summary: LedgerSummary) -> None:
    """Write report.html beside the dataset.json of a set."""
    write_atomically(image_set.folder, REPORT, render_report(report_contents(image_set, summary)))


def has_report(image_set: ImageSet) -> bool:
    """Return whether the set's folder has a report of exactly this set, by its fingerprint."""
    path = image_set.folder.path(REPORT)
    return image_set.folder.fs.exists(path) and image_set.fingerprint.encode() in image_set.folder.fs.cat_file(path)


def report_contents(image_set: ImageSet, summary: LedgerSummary) -> ReportContents:
    """Collect the contents of the report. This reads the row groups with the pictured images."""
    examples = summary.examples
    shown = [name for name in (image_set.classes or (None,)) if name in examples.kept][:CLASSES_SHOWN]
    samples = {name: [(part, row) for _, part, row in examples.kept[name]] for name in shown}
    conflicts = [rows for _, rows in sorted(examples.conflicts.items())]
    keys = [key for group in samples.values() for key in group]
    keys += [(part, row) for rows in conflicts for _, _, _, part, row in rows if part]
    pictures = thumbnails(image_set, keys)
    return ReportContents(
        image_set=image_set,
        sizes=summary.sizes,
        samples={name or "": [pictures[key] for key in group] for name, group in samples.items()},
        rejects=summary.rejected,
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
        conflict_count=summary.conflicting,
    )


def thumbnails(image_set: ImageSet, keys: Iterable[RowKey]) -> dict[RowKey, bytes]:
    """Make thumbnails of rows of the set. Each row group that has one of them is read once."""
    rows_of: dict[str, list[int]] = {}
    for part, row in keys:
        rows_of.setdefault(part, []).append(row)
    pictures = {}
    for part, rows in rows_of.items():
        for first, table in row_groups_with(image_set.folder, part, rows, [IMAGE]):
            for row in rows:
                if first <= row < first + table.num_rows:
                    stored = table[IMAGE][row - first].as_py()
                    pictures[part, row] = thumbnail(stored_pixels(stored, image_set.image))
    return pictures
