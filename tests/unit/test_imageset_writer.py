"""One task's share: every image counted once, statistics as NumPy's, a fingerprint of content and nothing else."""

from collections import Counter
from functools import reduce
from operator import add

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as drawn
from hypothesis import strategies as st

from cnnlib.config import SplitSettings
from cnnlib.images import ImageSpec
from cnnlib.imageset import CODE, IMAGE_ID, MESSAGE, PATH, REJECTS_SCHEMA, SCHEMA
from cnnlib.imageset_writer import (
    CONTENT,
    GIVEN_SPLIT,
    Share,
    channel_statistics,
    fingerprint,
    pixels_of,
    write_share,
)
from tests.unit.image_sets import copy_of, in_batches, plan_for, source_row
from tests.unit.pictures import encoded, noise, uniform

SPEC = ImageSpec(2, 3, 3)
CLASSES = ("cat", "dog")
PNG = encoded(uniform("RGB", (9, 8, 7)), "PNG")


def images(count: int, seed: int = 0) -> list[bytes]:
    return [image.tobytes() for image in np.random.default_rng(seed).integers(0, 256, (count, 18), dtype=np.uint8)]


def rows(count: int, seed: int = 0, **columns):
    return [source_row(image, CLASSES[i % 2], **columns) for i, image in enumerate(images(count, seed))]


def written(plan, share, folder) -> list[dict]:
    return [
        row for file in share.files.get(folder, []) for row in pq.read_table(plan.folder.path(file.path)).to_pylist()
    ]


@pytest.fixture
def plan(tmp_path):
    return plan_for(tmp_path, SPEC, CLASSES)


# --- counting


def test_kept_duplicate_and_rejected_are_counted(plan):
    good, other = rows(2)
    unknown = source_row(b"x" * 18, None)
    unreadable = source_row(b"y" * 18, "cat", **{CODE: "unreadable", MESSAGE: "no permission", CONTENT: None})
    share = write_share(plan, in_batches([good, copy_of(good), copy_of(good, 3), other, unknown, unreadable]), 0, 0)
    assert (share.found, share.kept, share.duplicate) == (6, 2, 2)
    assert share.rejected == Counter(unknown_label=1, unreadable=1)


def test_row_of_the_set_is_pixels_label_and_where_it_came_from(plan):
    row = source_row(bytes(range(18)), "dog", **{GIVEN_SPLIT: "val"})
    share = write_share(plan, in_batches([row]), 0, 0)
    assert written(plan, share, "val") == [
        {"image_id": row[IMAGE_ID], "path": row[PATH], "image": bytes(range(18)), "label": 1}
    ]
    assert share.class_counts == {"train": Counter(), "val": Counter({1: 1}), "test": Counter()}


def test_reject_tells_path_code_message_and_size(plan):
    row = source_row(b"12345", "cat", **{CODE: "unreadable", MESSAGE: "no permission", CONTENT: None})
    share = write_share(plan, in_batches([row]), 0, 0)
    assert written(plan, share, "rejects") == [
        {"path": row[PATH], "code": "unreadable", "message": "no permission", "size_bytes": 5}
    ]


def test_duplicate_of_a_reject_is_a_reject(tmp_path):
    plan = plan_for(tmp_path, SPEC, CLASSES, raw_shape=None)
    bad, good = source_row(b"no image", "cat"), source_row(PNG, "dog")
    share = write_share(plan, in_batches([bad, copy_of(bad), copy_of(bad, 3), good, copy_of(good)]), 0, 0)
    assert (share.found, share.kept, share.duplicate) == (5, 1, 1)
    assert share.rejected == Counter(not_an_image=3)
    assert [row["path"] for row in written(plan, share, "rejects")] == [
        bad[PATH],
        f"{bad[PATH]}-2",
        f"{bad[PATH]}-3",
    ]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_duplicate_in_the_next_batch_is_told_too(tmp_path, size):
    plan = plan_for(tmp_path, SPEC, CLASSES, raw_shape=None)
    bad, good = source_row(b"no image", "cat"), source_row(PNG, "dog")
    share = write_share(plan, in_batches([bad, copy_of(bad), good, copy_of(good)], size), 0, 0)
    assert (share.kept, share.duplicate, share.rejected.total()) == (1, 1, 2)


def test_image_of_no_known_class_is_rejected(plan):
    share = write_share(plan, in_batches([source_row(b"x" * 18, "emu"), source_row(b"y" * 18, None)]), 0, 0)
    assert (share.kept, share.rejected) == (0, Counter(unknown_label=2))
    assert list(share.files) == ["rejects"]


def test_split_without_rows_has_no_file(plan):
    share = write_share(plan, in_batches(rows(3, **{GIVEN_SPLIT: "test"})), 0, 0)
    assert list(share.files) == ["test"]
    assert [name.split("/")[0] for name in plan.folder.files()] == ["test"]


def test_types_are_the_contracts(plan):
    share = write_share(plan, in_batches([*rows(1, **{GIVEN_SPLIT: "train"}), source_row(b"x" * 18, None)]), 0, 0)
    for folder, schema in (("train", SCHEMA), ("rejects", REJECTS_SCHEMA)):
        assert pq.read_schema(plan.folder.path(share.files[folder][0].path)).equals(schema)


def test_row_groups_have_the_planned_rows(tmp_path):
    plan = plan_for(tmp_path, SPEC, CLASSES, rows_per_row_group=4)
    share = write_share(plan, in_batches(rows(10, **{GIVEN_SPLIT: "train"}), size=3), 0, 0)
    footer = pq.read_metadata(plan.folder.path(share.files["train"][0].path))
    assert [footer.row_group(i).num_rows for i in range(footer.num_row_groups)] == [4, 4, 2]


def test_split_settings_decide_where_no_split_is_given(tmp_path):
    plan = plan_for(tmp_path, SPEC, CLASSES, split=SplitSettings(val_fraction=0.0, test_fraction=0.5))
    share = write_share(plan, in_batches(rows(400)), 0, 0)
    assert share.class_counts["val"].total() == 0
    assert share.class_counts["test"].total() == pytest.approx(200, abs=50)


def test_task_that_fails_leaves_no_file(plan):
    def failing():
        yield from in_batches(rows(200), size=60)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_share(plan, failing(), 0, 0)
    assert plan.folder.files() == []


def test_task_without_rows_gives_an_empty_share(plan):
    share = write_share(plan, [], 0, 0)
    assert (share.found, share.kept, share.duplicate, share.rejected.total()) == (0, 0, 0, 0)
    assert share.files == {}
    assert plan.folder.files() == []


# --- pixels


def test_encoded_file_is_decoded_to_the_spec():
    assert (pixels_of(PNG, SPEC, None) == np.broadcast_to([9, 8, 7], (2, 3, 3))).all()


def test_array_of_another_shape_is_brought_to_the_spec():
    grey = noise(2, 3, 1)
    assert (pixels_of(grey.tobytes(), SPEC, (2, 3, 1)) == grey).all()


# --- statistics


@given(
    pixels=st.lists(st.binary(min_size=18, max_size=18), min_size=1, max_size=12),
    splits=st.lists(st.sampled_from(["train", "val", "test"]), min_size=12, max_size=12),
)
@drawn(max_examples=40)
def test_statistics_are_numpys_over_the_train_pixels(tmp_path_factory, pixels, splits):
    plan = plan_for(tmp_path_factory.mktemp("set"), SPEC, CLASSES)
    source = [source_row(image, "cat", **{GIVEN_SPLIT: split}) for image, split in zip(pixels, splits, strict=False)]
    mean, std = channel_statistics(write_share(plan, in_batches(source, 5), 0, 0), SPEC)
    train = b"".join(image for image, split in zip(pixels, splits, strict=False) if split == "train")
    if not train:
        assert (mean, std) == ((0.0,) * 3, (1.0,) * 3)
        return
    scaled = np.frombuffer(train, np.uint8).reshape(-1, 3) / 255
    assert mean == pytest.approx(scaled.mean(axis=0), abs=1e-12)
    assert std == pytest.approx(scaled.std(axis=0), abs=1e-7)


def test_deviation_of_a_constant_channel_is_zero(plan):
    pixels = noise(200, 6, 3).reshape(200, 2, 3, 3)
    pixels[..., 1] = 77
    source = [source_row(image.tobytes(), "cat", **{GIVEN_SPLIT: "train"}) for image in pixels]
    mean, std = channel_statistics(write_share(plan, in_batches(source), 0, 0), SPEC)
    assert (mean[1], std[1]) == (77 / 255, 0.0)


# --- fingerprint


def fingerprint_of(plan, *tasks, classes=CLASSES, spec=SPEC) -> str:
    shares = [write_share(plan, in_batches(task, 3), number, 0) for number, task in enumerate(tasks)]
    return fingerprint(reduce(add, shares), spec, classes)


ROWS = rows(12)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return fingerprint_of(plan_for(tmp_path_factory.mktemp("set"), SPEC, CLASSES), ROWS)


@given(order=st.permutations(range(12)), cuts=st.lists(st.integers(0, 12), max_size=3).map(sorted))
@drawn(max_examples=25)
def test_fingerprint_knows_neither_order_nor_tasks(tmp_path_factory, base, order, cuts):
    shuffled = [ROWS[i] for i in order]
    tasks = [shuffled[start:stop] for start, stop in zip([0, *cuts], [*cuts, 12], strict=True)]
    assert fingerprint_of(plan_for(tmp_path_factory.mktemp("set"), SPEC, CLASSES), *tasks) == base


def test_fingerprint_knows_no_names_duplicates_or_rejects(tmp_path, base):
    renamed = [row | {PATH: f"elsewhere/{i}"} for i, row in enumerate(ROWS)]
    renamed = [renamed[0], copy_of(renamed[0]), *renamed[1:], source_row(b"z" * 18, None)]
    assert fingerprint_of(plan_for(tmp_path, SPEC, CLASSES, rows_per_row_group=2), renamed) == base


def test_fingerprint_is_told_apart_by_label_pixel_split_and_class_name(tmp_path, base):
    plan = plan_for(tmp_path, SPEC, CLASSES)
    first, *rest = ROWS
    flipped_bit = bytes([first[CONTENT][0] ^ 1]) + first[CONTENT][1:]
    (split,) = write_share(plan, in_batches([first]), 99, 0).files
    changed = {
        "label": fingerprint_of(plan, [first | {"class_name": "dog"}, *rest]),
        "pixel of the same source": fingerprint_of(plan, [first | {CONTENT: flipped_bit}, *rest]),
        "source of the same pixels": fingerprint_of(plan, [first | {IMAGE_ID: "0" * 64}, *rest]),
        "split": fingerprint_of(plan, [first | {GIVEN_SPLIT: "val" if split != "val" else "test"}, *rest]),
        "an image less": fingerprint_of(plan, rest),
        "an image twice": fingerprint_of(plan, [first, first, *rest]),
        "a class more": fingerprint_of(plan, ROWS, classes=(*CLASSES, "emu")),
        "how it is resized": fingerprint_of(plan, ROWS, spec=ImageSpec(2, 3, 3, resize="fit_and_pad")),
    }
    renamed = plan_for(tmp_path, SPEC, ("cat", "wolf"))
    new_names = [row | {"class_name": {"cat": "cat", "dog": "wolf"}[row["class_name"]]} for row in ROWS]
    changed["a class's name"] = fingerprint_of(renamed, new_names, classes=renamed.classes)
    assert len({base, *changed.values()}) == 1 + len(changed)


# --- adding shares


def test_sum_of_shares_is_the_share_of_all(tmp_path):
    plan = plan_for(tmp_path, SPEC, CLASSES)
    unknown = source_row(b"x" * 18, None)
    everything = [*rows(30), unknown, copy_of(unknown)]
    parts = [write_share(plan, in_batches(part), n, 0) for n, part in enumerate((everything[:11], everything[11:]))]
    whole = write_share(plan, in_batches(everything), 2, 0)
    total = reduce(add, parts)
    for name in ("found", "kept", "duplicate", "rejected", "channel_sums", "channel_square_sums", "content_sum"):
        assert getattr(total, name) == getattr(whole, name), name
    assert total.class_counts == whole.class_counts
    assert total.files["train"] == parts[0].files["train"] + parts[1].files["train"]


def test_empty_share_adds_nothing(plan):
    share = write_share(plan, in_batches(rows(5)), 0, 0)
    assert share + Share() == share
    assert Share() + share == share
