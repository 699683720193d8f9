"""Rewriting part files: they end as the ledger says, those that already agree are not touched, and no row is lost."""

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as drawn
from hypothesis import strategies as st

from cnnlib.image_set.contract import CODE, LABEL, PATH
from cnnlib.image_set.ledger import CLASS_NAME, DUPLICATE, GIVEN_SPLIT, KEPT, LEDGER, OUTCOME, PART, ROW, SPLIT
from cnnlib.image_set.writer import write_images
from cnnlib.sealed.frozen.images import ImageSpec
from tests.unit.image_sets import as_written, in_batches, ledger_rows, plan_for, rewritten_parts_of, source_row

SPEC = ImageSpec(1, 1, 1)
CLASSES = ("cat", "dog")


def write_tasks(plan, splits, tasks=2):
    """Write one image per entry of `splits`: image i has the pixel i and the class i % 2."""
    rows = [source_row(bytes([i]), CLASSES[i % 2], **{GIVEN_SPLIT: split}) for i, split in enumerate(splits)]
    size = -(-len(rows) // tasks)
    return [write_images(plan, in_batches(rows[task * size : (task + 1) * size]), task, 0) for task in range(tasks)]


def pixels_by_split(plan, rewritten) -> dict[str, dict[int, int]]:
    """Read pixel -> label of every split from its files."""
    found = {}
    for split in ("train", "val", "test"):
        rows = [
            row for f in rewritten.files.get(split, []) for row in pq.read_table(plan.folder.path(f.path)).to_pylist()
        ]
        found[split] = {row["image"][0]: row["label"] for row in rows}
        assert len(found[split]) == len(rows) == sum(file.rows for file in rewritten.files.get(split, []))
    return found


@pytest.fixture
def plan(tmp_path):
    return plan_for(tmp_path, SPEC, CLASSES, rows_per_row_group=3)


def test_files_that_agree_with_the_ledger_stay(plan):
    written = write_tasks(plan, ["train"] * 8 + ["val"] * 2)
    before = {name for name in plan.folder.files() if not name.startswith(LEDGER)}
    rewritten = rewritten_parts_of(plan, written)
    assert {file.path for split in ("train", "val") for file in rewritten.files[split]} == before
    assert {name for name in plan.folder.files() if not name.startswith(LEDGER)} == before


def test_dropped_and_moved_rows_leave_the_others(plan):
    written = write_tasks(plan, ["train"] * 10)
    decided = [as_written(row) for row in ledger_rows(plan, written)]
    decided[1] |= {OUTCOME: DUPLICATE, SPLIT: None}
    decided[4] |= {SPLIT: "test"}
    rewritten = rewritten_parts_of(plan, written, decided)
    assert pixels_by_split(plan, rewritten) == {
        "train": {0: 0, 2: 0, 3: 1, 5: 1, 6: 0, 7: 1, 8: 0, 9: 1},
        "val": {},
        "test": {4: 0},
    }
    # The second task's file already agreed with the ledger.
    assert written[1].files["train"][0] in rewritten.files["train"]


def test_new_class_changes_labels(plan, tmp_path):
    written = write_tasks(plan, ["train", "val"])
    renumbered = plan_for(tmp_path, SPEC, ("ape", "cat", "dog"))
    rewritten = rewritten_parts_of(renumbered, written)
    assert pixels_by_split(plan, rewritten) == {"train": {0: 1}, "val": {1: 2}, "test": {}}


def test_rejects_are_written_from_the_ledger(plan):
    bad = source_row(b"x", None)
    rewritten = rewritten_parts_of(plan, [write_images(plan, in_batches([source_row(b"a", "cat"), bad]), 0, 0)])
    (file,) = rewritten.files["rejects"]
    assert pq.read_table(plan.folder.path(file.path)).to_pylist() == [
        {"path": bad[PATH], "code": "unknown_label", "message": "the image has no label", "size_bytes": 1}
    ]
    assert rewritten.summary.rejected == {"unknown_label": 1}


@given(
    splits=st.lists(st.sampled_from(["train", "val", "test"]), min_size=1, max_size=40),
    decisions=st.lists(st.sampled_from(["train", "val", "test", None]), min_size=40, max_size=40),
)
@drawn(max_examples=40, deadline=None)
def test_files_end_as_decided_and_the_ledger_finds_every_row(tmp_path_factory, splits, decisions):
    plan = plan_for(tmp_path_factory.mktemp("set"), SPEC, CLASSES, rows_per_row_group=4)
    written = write_tasks(plan, splits, tasks=3)
    decided = [
        as_written(row) | {OUTCOME: KEPT if decision else DUPLICATE, SPLIT: decision}
        for row, decision in zip(ledger_rows(plan, written), decisions, strict=False)
    ]
    rewritten = rewritten_parts_of(plan, written, decided)
    expected = {split: {} for split in ("train", "val", "test")}
    for number, decision in enumerate(decisions[: len(splits)]):
        if decision:
            expected[decision][number] = number % 2
    assert pixels_by_split(plan, rewritten) == expected
    for row in (row for f in rewritten.files[LEDGER] for row in pq.read_table(plan.folder.path(f.path)).to_pylist()):
        assert (row[PART] is None) == (row[OUTCOME] != KEPT)
        if row[PART]:
            stored = pq.read_table(plan.folder.path(row[PART])).slice(row[ROW], 1).to_pylist()[0]
            assert (stored[PATH], stored[LABEL]) == (row[PATH], CLASSES.index(row[CLASS_NAME]))
            assert row[CODE] is None
