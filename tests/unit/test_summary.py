"""The summary: statistics equal NumPy's, the fingerprint depends on content only, examples do not depend on tasks."""

from dataclasses import replace
from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as drawn
from hypothesis import strategies as st

from cnnlib.image_set.contract import IMAGE_ID, PATH
from cnnlib.image_set.ledger import CLASS_NAME, CONFLICTING, GIVEN_SPLIT, KEPT, OUTCOME, PIXEL_ID, REJECTED, SPLIT
from cnnlib.image_set.summary import SHOWN, LedgerSummary
from cnnlib.image_set.writer import write_images
from cnnlib.sealed.frozen.images import ImageSpec
from tests.unit.image_sets import as_written, in_batches, ledger_rows, plan_for, source_row
from tests.unit.pictures import noise

SPEC = ImageSpec(2, 3, 3)
CLASSES = ("cat", "dog")


def decided_rows(folder, source) -> list[dict]:
    plan = plan_for(folder, SPEC, CLASSES)
    return [as_written(row) for row in ledger_rows(plan, [write_images(plan, in_batches(source), 0, 0)])]


def summary_of(rows) -> LedgerSummary:
    summary = LedgerSummary()
    for row in rows:
        summary.add(row)
    return summary


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    images = np.random.default_rng(0).integers(0, 256, (12, 18), dtype=np.uint8)
    source = [source_row(image.tobytes(), CLASSES[i % 2]) for i, image in enumerate(images)]
    return decided_rows(tmp_path_factory.mktemp("set"), source)


# --- statistics


@given(
    pixels=st.lists(st.binary(min_size=18, max_size=18), min_size=1, max_size=12),
    splits=st.lists(st.sampled_from(["train", "val", "test"]), min_size=12, max_size=12),
)
@drawn(max_examples=40, deadline=None)
def test_statistics_are_numpys_over_the_train_pixels(tmp_path_factory, pixels, splits):
    source = [source_row(image, "cat", **{GIVEN_SPLIT: split}) for image, split in zip(pixels, splits, strict=False)]
    mean, std = summary_of(decided_rows(tmp_path_factory.mktemp("set"), source)).channel_statistics(SPEC)
    train = b"".join(image for image, split in zip(pixels, splits, strict=False) if split == "train")
    if not train:
        assert (mean, std) == ((0.0,) * 3, (1.0,) * 3)
        return
    scaled = np.frombuffer(train, np.uint8).reshape(-1, 3) / 255
    assert mean == pytest.approx(scaled.mean(axis=0), abs=1e-12)
    assert std == pytest.approx(scaled.std(axis=0), abs=1e-7)


def test_deviation_of_a_constant_channel_is_zero(tmp_path):
    pixels = noise(200, 6, 3).reshape(200, 2, 3, 3)
    pixels[..., 1] = 77
    source = [source_row(image.tobytes(), "cat", **{GIVEN_SPLIT: "train"}) for image in pixels]
    mean, std = summary_of(decided_rows(tmp_path, source)).channel_statistics(SPEC)
    assert (mean[1], std[1]) == (77 / 255, 0.0)


# --- fingerprint

AS_JPEG = replace(SPEC, encoding="jpeg")


def fingerprint_of(*tasks, classes=CLASSES, spec=SPEC, quality=90) -> str:
    return reduce(add, map(summary_of, tasks)).fingerprint(spec, classes, quality)


@given(order=st.permutations(range(12)), cuts=st.lists(st.integers(0, 12), max_size=3).map(sorted))
@drawn(max_examples=25)
def test_summary_depends_on_neither_order_nor_tasks(rows, order, cuts):
    shuffled = [rows[i] for i in order]
    tasks = [shuffled[start:stop] for start, stop in zip([0, *cuts], [*cuts, 12], strict=True)]
    assert reduce(add, map(summary_of, tasks)) == summary_of(rows)
    assert fingerprint_of(*tasks) == fingerprint_of(rows)


def test_fingerprint_ignores_names_duplicates_and_rejects(rows):
    renamed = [row | {PATH: f"elsewhere/{i}"} for i, row in enumerate(rows)]
    duplicate = rows[0] | {OUTCOME: "duplicate", SPLIT: None}
    reject = rows[1] | {OUTCOME: REJECTED, "code": "truncated", "message": "", SPLIT: None}
    assert fingerprint_of([*renamed, duplicate, reject]) == fingerprint_of(rows)


def test_fingerprint_changes_with_label_pixel_split_or_class(rows):
    first, *rest = rows
    changed = {
        "nothing": fingerprint_of(rows),
        "label": fingerprint_of([first | {CLASS_NAME: "dog"}, *rest]),
        "pixel of the same source": fingerprint_of([first | {PIXEL_ID: "0" * 64}, *rest]),
        "source of the same pixels": fingerprint_of([first | {IMAGE_ID: "0" * 64}, *rest]),
        "split": fingerprint_of([first | {SPLIT: "val" if first[SPLIT] != "val" else "test"}, *rest]),
        "an image less": fingerprint_of(rest),
        "an image twice": fingerprint_of([first, first, *rest]),
        "a class more": fingerprint_of(rows, classes=(*CLASSES, "emu")),
        "how it is resized": fingerprint_of(rows, spec=ImageSpec(2, 3, 3, resize="fit_and_pad")),
        "how it is encoded": fingerprint_of(rows, spec=AS_JPEG),
        "how well": fingerprint_of(rows, spec=AS_JPEG, quality=80),
        "a class's name": fingerprint_of(
            [row | {CLASS_NAME: row[CLASS_NAME].replace("dog", "wolf")} for row in rows], classes=("cat", "wolf")
        ),
    }
    assert len(set(changed.values())) == len(changed)
    # The quality counts for JPEG only.
    assert fingerprint_of(rows, quality=80) == changed["nothing"]


# --- examples


def test_examples_are_the_first_of_each_kind_for_any_tasks(rows):
    many = [
        rows[i % 12]
        | {PIXEL_ID: f"{i:064d}", "part": "train/a", "row": i, CLASS_NAME: CLASSES[i % 2], CONFLICTING: i % 5 == 0}
        for i in range(100)
    ]
    rejects = [rows[0] | {OUTCOME: REJECTED, SPLIT: None, "code": "truncated", PATH: f"p{i:03d}"} for i in range(30)]
    shuffled = [(many + rejects)[i] for i in np.random.default_rng(1).permutation(130)]
    whole = summary_of(many + rejects).examples
    assert reduce(add, (summary_of(shuffled[start::7]) for start in range(7))).examples == whole
    assert [int(pixel_id) for pixel_id, _, _ in whole.kept["cat"]] == list(range(0, 2 * SHOWN, 2))
    assert [path for path, _, _ in whole.rejected["truncated"]] == [f"p{i:03d}" for i in range(SHOWN)]
    assert [int(pixel_id) for pixel_id in sorted(whole.conflicts)] == list(range(0, 5 * SHOWN, 5))


def test_counts_are_by_outcome_split_and_class(rows):
    some = [rows[0] | {SPLIT: "val"}, rows[1] | {SPLIT: "train"}, rows[2] | {SPLIT: "val", OUTCOME: "duplicate"}]
    summary = summary_of(some)
    assert summary.outcomes == {KEPT: 2, "duplicate": 1}
    assert summary.class_counts == {("val", "cat"): 1, ("train", "dog"): 1}
    assert (summary.rows("val"), summary.rows("test"), summary.found) == (1, 0, 3)
    assert summary.sizes == {(2, 3): 3}
