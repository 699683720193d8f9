"""One task writes its images: each is in a split or a reject, and the ledger has everything known about it."""

import hashlib
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as drawn
from hypothesis import strategies as st
from PIL import Image

from cnnlib.config import SplitSettings
from cnnlib.image_set.contract import CODE, IMAGE_ID, LABEL, MESSAGE, PATH, SCHEMA
from cnnlib.image_set.ledger import (
    CHANNEL_SQUARE_SUMS,
    CHANNEL_SUMS,
    GIVEN_SPLIT,
    GROUP,
    HEIGHT,
    PART,
    PERCEPTUAL_HASH,
    PIXEL_ID,
    ROW,
    THUMBNAIL,
    WIDTH,
)
from cnnlib.image_set.ledger import SCHEMA as LEDGER_SCHEMA
from cnnlib.image_set.writer import CONTENT, THUMBNAILS, channel_sums, perceptual_hash, write_images
from cnnlib.sealed.frozen.images import ImageSpec, Limits, decode_image
from tests.unit.image_sets import in_batches, ledger_rows, plan_for, source_row
from tests.unit.pictures import encoded, noise, uniform

SPEC = ImageSpec(2, 3, 3)
CLASSES = ("cat", "dog")
PNG = encoded(uniform("RGB", (9, 8, 7)), "PNG")


def images(count: int, seed: int = 0) -> list[bytes]:
    return [image.tobytes() for image in np.random.default_rng(seed).integers(0, 256, (count, 18), dtype=np.uint8)]


def rows(count: int, seed: int = 0, **columns):
    return [source_row(image, CLASSES[i % 2], **columns) for i, image in enumerate(images(count, seed))]


def rows_in(plan, written, folder) -> list[dict]:
    return [
        row for file in written.files.get(folder, []) for row in pq.read_table(plan.folder.path(file.path)).to_pylist()
    ]


def write_rows(plan, source, size: int = 100):
    return write_images(plan, in_batches(source, size), 0, 0)


@pytest.fixture
def plan(tmp_path):
    return plan_for(tmp_path, SPEC, CLASSES)


# --- what is written


def test_found_and_rejected_are_counted(plan):
    unknown = source_row(b"x" * 18, None)
    unreadable = source_row(b"y" * 18, "cat", **{CODE: "unreadable", MESSAGE: "no permission", CONTENT: None})
    written = write_rows(plan, [*rows(2), unknown, unreadable])
    assert written.found == 4
    assert written.rejected == Counter(unknown_label=1, unreadable=1)


def test_row_of_the_set_has_pixels_label_and_origin(plan):
    row = source_row(bytes(range(18)), "dog", **{GIVEN_SPLIT: "val"})
    written = write_rows(plan, [row])
    assert rows_in(plan, written, "val") == [
        {
            "image_id": hashlib.sha256(row[CONTENT]).hexdigest(),
            "path": row[PATH],
            "image": bytes(range(18)),
            "label": 1,
        }
    ]


def test_ledger_has_the_image_and_the_location_of_its_pixels(tmp_path):
    plan = plan_for(tmp_path, SPEC, CLASSES, raw_shape=None)
    png = encoded(uniform("RGB", (9, 8, 7), size=(30, 20)), "PNG")
    written = write_rows(plan, [source_row(png, "dog", **{GIVEN_SPLIT: "val"})])
    (row,) = ledger_rows(plan, [written])
    pixels = bytes([9, 8, 7]) * 6
    assert row[IMAGE_ID] == hashlib.sha256(png).hexdigest()
    assert row[PIXEL_ID] == hashlib.sha256(pixels).hexdigest()
    assert (row[HEIGHT], row[WIDTH]) == (20, 30)
    assert (row[CHANNEL_SUMS], row[CHANNEL_SQUARE_SUMS]) == ([54, 48, 42], [486, 384, 294])
    assert (row[PART], row[ROW], row[LABEL]) == (written.files["val"][0].path, 0, 1)


def test_ledger_finds_every_row(tmp_path):
    plan = plan_for(tmp_path, SPEC, CLASSES, rows_per_row_group=4)
    written = write_rows(plan, rows(40), size=7)
    in_ledger = ledger_rows(plan, [written])
    assert len(in_ledger) == 40
    for row in in_ledger:
        table = pq.read_table(plan.folder.path(row[PART]))
        assert table["path"][row[ROW]].as_py() == row[PATH]


def test_reject_has_code_and_message(plan):
    row = source_row(b"12345", "cat", **{CODE: "unreadable", MESSAGE: "no permission", CONTENT: None})
    written = write_rows(plan, [row])
    (in_ledger,) = ledger_rows(plan, [written])
    assert {name: in_ledger[name] for name in (PATH, CODE, MESSAGE, "size_bytes", PART, IMAGE_ID)} == {
        PATH: row[PATH],
        CODE: "unreadable",
        MESSAGE: "no permission",
        "size_bytes": 5,
        PART: None,
        IMAGE_ID: None,
    }
    assert list(written.files) == ["ledger"]


def test_first_readable_rejects_of_a_code_have_a_thumbnail(tmp_path):
    plan = plan_for(tmp_path, SPEC, CLASSES, raw_shape=None)
    pictures = [
        source_row(encoded(uniform("RGB", (n, 0, 0), size=(5, 4)), "PNG"), "emu") for n in range(THUMBNAILS + 1)
    ]
    written = write_rows(plan, [*pictures, source_row(b"no image", "cat")])
    shown = [row[THUMBNAIL] for row in ledger_rows(plan, [written])]
    assert shown[THUMBNAILS:] == [None, None]
    assert (decode_image(shown[2], ImageSpec(4, 5, 3)) == [2, 0, 0]).all()


@pytest.mark.parametrize("class_name", ["emu", None])
def test_image_of_no_known_class_is_rejected(plan, class_name):
    written = write_rows(plan, [source_row(b"x" * 18, class_name)])
    assert written.rejected == Counter(unknown_label=1)


def test_unlabelled_images_need_no_class(tmp_path):
    plan = plan_for(tmp_path, SPEC, (), labelled=False)
    written = write_rows(plan, [source_row(b"x" * 18, None, **{GIVEN_SPLIT: "test"})])
    assert [row["label"] for row in rows_in(plan, written, "test")] == [-1]


def test_limits_are_kept(tmp_path):
    plan = plan_for(tmp_path, SPEC, CLASSES, raw_shape=None, limits=Limits(max_bytes=len(PNG) - 1))
    assert write_rows(plan, [source_row(PNG, "cat")]).rejected == Counter(too_many_bytes=1)


@pytest.mark.parametrize("encoding", ["png", "jpeg"])
def test_pixels_are_stored_encoded(tmp_path, encoding):
    plan = plan_for(tmp_path, ImageSpec(16, 16, 3, encoding=encoding), CLASSES)
    pixels = noise(16, 16, 3) // 64 + 90
    written = write_rows(plan, [source_row(pixels.tobytes(), "cat", **{GIVEN_SPLIT: "train"})])
    (row,) = rows_in(plan, written, "train")
    stored = decode_image(row["image"], ImageSpec(16, 16, 3))
    assert np.abs(stored.astype(int) - pixels).max() <= (0 if encoding == "png" else 8)
    assert ledger_rows(plan, [written])[0][PIXEL_ID] == hashlib.sha256(pixels.tobytes()).hexdigest()


def test_split_without_rows_has_no_file(plan):
    written = write_rows(plan, rows(3, **{GIVEN_SPLIT: "test"}))
    assert sorted(written.files) == ["ledger", "test"]
    assert [name.split("/")[0] for name in plan.folder.files()] == ["ledger", "test"]


def test_types_are_the_contracts(plan):
    written = write_rows(plan, [*rows(1, **{GIVEN_SPLIT: "train"}), source_row(b"x" * 18, None)])
    for folder, schema in (("train", SCHEMA), ("ledger", LEDGER_SCHEMA)):
        assert pq.read_schema(plan.folder.path(written.files[folder][0].path)).equals(schema)


def test_row_groups_have_the_planned_rows(tmp_path):
    plan = plan_for(tmp_path, SPEC, CLASSES, rows_per_row_group=4)
    written = write_rows(plan, rows(10, **{GIVEN_SPLIT: "train"}), size=3)
    footer = pq.read_metadata(plan.folder.path(written.files["train"][0].path))
    assert [footer.row_group(i).num_rows for i in range(footer.num_row_groups)] == [4, 4, 2]


# --- splits


def test_split_settings_decide_where_no_split_is_given(tmp_path):
    plan = plan_for(tmp_path, SPEC, CLASSES, split=SplitSettings(val_fraction=0.0, test_fraction=0.5))
    written = write_rows(plan, rows(400))
    assert "val" not in written.files
    assert written.files["test"][0].rows == pytest.approx(200, abs=50)


def test_equal_pixels_in_two_encodings_land_in_one_split(tmp_path):
    plan = plan_for(tmp_path, SPEC, CLASSES, raw_shape=None, split=SplitSettings(val_fraction=0.4, test_fraction=0.4))
    pictures = [noise(2, 3, 3, seed) for seed in range(20)]
    encodings = [[encoded(Image.fromarray(picture), kind) for picture in pictures] for kind in ("PNG", "BMP", "TIFF")]
    written = write_rows(plan, [source_row(content, "cat") for contents in encodings for content in contents])
    in_ledger = ledger_rows(plan, [written])
    splits = [row[PART].split("/")[0] for row in in_ledger]
    assert splits[:20] == splits[20:40] == splits[40:]
    assert len(set(splits)) == 3
    assert len({row[IMAGE_ID] for row in in_ledger}) == 60


def test_images_of_a_group_land_in_one_split(tmp_path):
    plan = plan_for(tmp_path, SPEC, CLASSES, split=SplitSettings(val_fraction=0.4, test_fraction=0.4))
    groups = [source_row(image, "cat", **{GROUP: f"patient {i % 10}"}) for i, image in enumerate(images(100))]
    split_of = {}
    for row in ledger_rows(plan, [write_rows(plan, groups)]):
        split_of.setdefault(row[GROUP], set()).add(row[PART].split("/")[0])
    assert all(len(splits) == 1 for splits in split_of.values())
    assert len(set.union(*split_of.values())) > 1


# --- failures


def test_task_that_fails_leaves_no_file(plan):
    def failing():
        yield from in_batches(rows(200), size=60)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_images(plan, failing(), 0, 0)
    assert plan.folder.files() == []


def test_task_without_rows_writes_nothing(plan):
    written = write_images(plan, [], 0, 0)
    assert (written.found, written.rejected.total(), written.files) == (0, 0, {})
    assert plan.folder.files() == []


# --- numbers of an image


@given(pixels=st.binary(min_size=18, max_size=18))
@drawn(max_examples=30)
def test_channel_sums_are_exact(pixels):
    array = np.frombuffer(pixels, np.uint8).reshape(2, 3, 3)
    sums, squares = channel_sums(array)
    assert sums == [sum(int(v) for v in array[..., c].ravel()) for c in range(3)]
    assert squares == [sum(int(v) ** 2 for v in array[..., c].ravel()) for c in range(3)]


def test_perceptual_hash_is_near_for_another_size_only(tmp_path):
    ramp = np.add.outer(np.arange(96) * 2, np.arange(96) // 2).astype(np.uint8)[..., None]
    smaller = np.ascontiguousarray(ramp[::2, ::2])
    other = noise(96, 96, 1)

    def differing_bits(a, b):
        return ((perceptual_hash(a) ^ perceptual_hash(b)) & (2**64 - 1)).bit_count()

    assert differing_bits(ramp, smaller) <= 6
    assert differing_bits(ramp, other) >= 16


def test_perceptual_hash_is_taken_on_request(tmp_path):
    plan = plan_for(tmp_path, ImageSpec(40, 40, 1), CLASSES, split=SplitSettings(near_duplicates=2))
    pixels = noise(40, 40, 1)
    (row,) = ledger_rows(plan, [write_rows(plan, [source_row(pixels.tobytes(), "cat")])])
    assert row[PERCEPTUAL_HASH] == perceptual_hash(pixels)
