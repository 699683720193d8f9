"""Sets that store PNG and JPEG: training gets the same pixels as scoring."""

import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageFilter

from cnnlib.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

from cnnlib.errors import FeedError  # noqa: E402
from cnnlib.feed import make_dataset  # noqa: E402
from cnnlib.feed.blocks import read_split  # noqa: E402
from cnnlib.sealed.frozen.images import ImageSpec, decode_image  # noqa: E402
from tests.unit.feeds import CLASSES, batches_of, rows_of, within  # noqa: E402
from tests.unit.image_sets import write_train_split  # noqa: E402

ROWS = 90
HEIGHT, WIDTH = 21, 34


def encode(channels: int, **options) -> list[bytes]:
    """Return files of blurred noise with edges, which JPEG transforms of different accuracy round differently."""
    random = np.random.default_rng(0)
    files = []
    for _ in range(ROWS):
        noise = random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        picture = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(1.5))
        picture.paste((250, 20, 60), (5, 5, 15, 12))
        file = io.BytesIO()
        picture.convert("L" if channels == 1 else "RGB").save(file, **options)
        files.append(file.getvalue())
    return files


OPTIONS = {
    "png": {"format": "png"},
    "jpeg": {"format": "jpeg", "quality": 85},
    "jpeg, colours at full size": {"format": "jpeg", "quality": 95, "subsampling": 0},
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("seed", [None, 3])
def test_pixels_are_those_of_decode_image(tmp_path, channels, options, seed):
    spec = ImageSpec(HEIGHT, WIDTH, channels, encoding=options["format"])
    stored, labels = encode(channels, **options), [row % 10 for row in range(ROWS)]
    image_set = write_train_split(tmp_path, stored, labels, spec=spec, classes=CLASSES, row_groups=[[20, 30], [40]])
    with make_dataset(image_set, "train", worker_batch_size=32, seed=seed) as dataset:
        batches = batches_of(dataset)
        assert tuple(dataset.element_spec[0].shape) == (None, HEIGHT, WIDTH, channels)
    assert [len(batch) for batch in batches] == [30, 30, 30]
    expected = [(decode_image(file, spec).tobytes(), label) for file, label in zip(stored, labels, strict=True)]
    assert len(set(expected)) == ROWS
    assert Counter(rows_of(batches)) == Counter(expected)
    assert (rows_of(batches) == expected) is (seed is None)


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (b"no picture", "an image that is not a valid JPEG file"),
        (encode(3, format="jpeg")[0][:400], "an image that is not a valid JPEG file"),
    ],
    ids=["no-picture", "cut-off"],
)
def test_image_that_cannot_be_decoded_is_a_feed_error(tmp_path, image, says):
    spec = ImageSpec(HEIGHT, WIDTH, 3, encoding="jpeg")
    stored = [*encode(3, format="jpeg")[:9], image]
    image_set = write_train_split(tmp_path, stored, [0] * 10, spec=spec, classes=CLASSES, row_groups=[[10]])

    def read():
        with make_dataset(image_set, "train", worker_batch_size=4) as dataset:
            batches_of(dataset)

    with pytest.raises(FeedError, match=says) as raised:
        within(60, read)
    assert str(tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("encoding", ["png", "jpeg"])
def test_read_split_decodes_images(tmp_path, encoding):
    spec = ImageSpec(HEIGHT, WIDTH, 3, encoding=encoding)
    stored = encode(3, **OPTIONS[encoding])
    image_set = write_train_split(tmp_path, stored, [0] * ROWS, spec=spec, classes=CLASSES, row_groups=[[20, 30], [40]])
    images = np.concatenate([images for images, _ in read_split(image_set, "train")])
    assert images.dtype == np.uint8
    assert (images == np.stack([decode_image(file, spec) for file in stored])).all()


def test_read_split_reports_an_image_that_cannot_be_decoded(tmp_path):
    spec = ImageSpec(HEIGHT, WIDTH, 3, encoding="png")
    image_set = write_train_split(tmp_path, [b"no image"], [0], spec=spec, classes=CLASSES, row_groups=[[1]])
    with pytest.raises(FeedError, match=r"has an image that cannot be decoded \(not_an_image\); ingest the set again"):
        next(read_split(image_set, "train"))
