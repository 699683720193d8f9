"""Augmentation changes images and labels, and leaves nothing in the model."""

import re

import numpy as np
import pytest

from cnnlib.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

import keras  # noqa: E402
from keras.ops import convert_to_numpy as to_numpy  # noqa: E402

from cnnlib.config import AugmentSettings, ShowSettings  # noqa: E402
from cnnlib.errors import ConfigError  # noqa: E402
from cnnlib.training.augmentation import Augmentation, _rand_augment  # noqa: E402
from cnnlib.training.checkpoints import checkpoint_folder  # noqa: E402
from cnnlib.training.compiled_model import new_model  # noqa: E402
from pipelines.show import show_batch  # noqa: E402
from tests.unit.trainings import LENET, RecordedFit, settings, striped_set  # noqa: E402

IMAGES = np.random.default_rng(0).integers(1, 256, (64, 12, 16, 3), dtype=np.uint8)
LABELS = np.eye(64, dtype=np.float32)
EVERYTHING = {
    "flip": "horizontal",
    "shift": 0.1,
    "rotation": 5,
    "zoom": 0.1,
    "crop_padding": 1,
    "colour": 0.2,
    "rand_augment": 0.1,
    "erasing": 0.2,
    "mixup": 0.2,
}


@pytest.fixture(scope="module")
def image_set(tmp_path_factory):
    return striped_set(tmp_path_factory.mktemp("set"))


def augmented(images=IMAGES, **changes) -> tuple[np.ndarray, np.ndarray]:
    """Return the changed images as integers, and the changed labels."""
    keras.utils.set_random_seed(3)
    changed, labels = Augmentation(AugmentSettings(**changes), images.shape[1:])(images, LABELS[: len(images)])
    assert changed.dtype == "uint8"
    return changed.numpy().astype(int), labels.numpy() if hasattr(labels, "numpy") else labels


def moved(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """Return the image moved by whole pixels, with black in the empty area."""
    height, width, _ = image.shape
    padded = np.pad(image, ((9, 9), (9, 9), (0, 0)))
    return padded[9 - down : 9 - down + height, 9 - right : 9 - right + width]


# --- images


@pytest.mark.parametrize(
    ("flip", "axes"), [("horizontal", [(), (1,)]), ("vertical", [(), (0,)]), ("both", [(), (0,), (1,), (0, 1)])]
)
def test_flip_mirrors_half_of_the_images_along_each_axis(flip, axes):
    changed, _ = augmented(flip=flip)
    found = [
        next(which for which in axes if np.array_equal(after, np.flip(before, which)))
        for before, after in zip(IMAGES, changed, strict=True)
    ]
    counts = [found.count(which) for which in axes]
    # Each count is binomial; allow five standard deviations.
    assert all(abs(count - 64 / len(axes)) < 5 * np.sqrt(64 / 4) for count in counts), counts
    assert min(counts) > 0


def test_crop_and_pad_cuts_each_image_at_its_own_position():
    changed, _ = augmented(crop_padding=2)
    offsets = [(down, right) for down in range(-2, 3) for right in range(-2, 3)]
    found = [
        next(offset for offset in offsets if np.array_equal(after, moved(before, *offset)))
        for before, after in zip(IMAGES, changed, strict=True)
    ]
    assert len(set(found)) > 10


def test_shift_moves_no_further_than_its_fraction():
    dot = np.zeros((64, 21, 21, 1), np.uint8)
    dot[:, 10, 10] = 255
    changed, _ = augmented(dot, shift=0.2)
    weights = changed[..., 0] / changed.sum(axis=(1, 2, 3))[:, None, None]
    offsets = [np.abs((weights * grid).sum(axis=(1, 2)) - 10) for grid in np.mgrid[:21, :21]]
    for offset in offsets:
        # The largest move is near 0.2 of 21 pixels.
        assert 2.5 < offset.max() <= 4.2 + 0.05


def test_rotation_turns_no_further_than_its_degrees():
    bar = np.zeros((64, 41, 41, 1), np.uint8)
    bar[:, 20, :] = 255
    changed, _ = augmented(bar, rotation=20)
    # The right end moves by the tangent of the angle.
    ends = np.abs(changed[:, :, 35, 0].argmax(axis=1) - 20)
    most = np.tan(np.radians(20)) * 15
    assert 0.7 * most < ends.max() <= most + 1


def test_zoom_makes_larger_and_smaller():
    square = np.zeros((64, 40, 40, 1), np.uint8)
    square[:, 10:30, 10:30] = 255
    changed, _ = augmented(square, zoom=0.2)
    heights = (changed[:, :, 20, 0] > 127).sum(axis=1)
    assert 15 <= heights.min() <= 18
    assert 22 <= heights.max() <= 26


def test_moved_images_are_filled_as_the_settings_say():
    bright = np.full((8, 12, 12, 1), 200, np.uint8)
    black, _ = augmented(bright, crop_padding=4)
    nearest, _ = augmented(bright, crop_padding=4, fill="nearest")
    assert black.min() == 0
    assert nearest.min() == nearest.max() == 200


def test_colour_changes_brightness_and_contrast_of_grey():
    grey, _ = augmented(IMAGES[..., :1], colour=0.5)
    for before, after in zip(IMAGES[..., :1].astype(int), grey, strict=True):
        pixels = np.argsort(before.ravel(), kind="stable")
        # The change is monotonic: no pixel becomes brighter than another that was brighter before.
        assert (np.diff(after.ravel()[pixels]) >= 0).all()
    assert np.abs(grey - IMAGES[..., :1]).mean() > 5


def test_colour_changes_hue_and_saturation_of_rgb():
    red = np.zeros((16, 8, 8, 3), np.uint8)
    red[..., 0] = 200
    changed, _ = augmented(red, colour=1.0)
    assert changed[..., 1:].max() > 10


def test_weak_colour_changes_little_and_to_both_sides():
    pictures = np.empty((512, 8, 8, 3), np.uint8)
    pictures[:, :4], pictures[:, 4:] = (200, 90, 60), (120, 60, 40)
    changed, _ = augmented(pictures, colour=0.1)

    assert np.abs(changed.mean(axis=0) - pictures[0]).max() < 6

    def contrast(images: np.ndarray) -> np.ndarray:
        return images[:, :4].mean(axis=(1, 2, 3)) - images[:, 4:].mean(axis=(1, 2, 3))

    def saturation(images: np.ndarray) -> np.ndarray:
        return 1 - images[:, 0, 0].min(axis=-1) / images[:, 0, 0].max(axis=-1)

    for measure, before in ((contrast, contrast(pictures)[0]), (saturation, saturation(pictures)[0])):
        assert 0.3 < (measure(changed) > before).mean() < 0.7


def test_erasing_blackens_a_rectangle_in_some_images():
    always, _ = augmented(erasing=1.0)
    for before, after in zip(IMAGES, always, strict=True):
        gone = (after == 0).all(axis=-1)
        rows, columns = np.flatnonzero(gone.any(axis=1)), np.flatnonzero(gone.any(axis=0))
        assert gone.sum() == len(rows) * len(columns)
        assert np.array_equal(after[~gone], before[~gone])
    changed, _ = augmented(np.repeat(IMAGES, 8, axis=0)[:64], erasing=0.25)
    fraction = np.mean([(image == 0).any() for image in changed])
    assert 0.05 < fraction < 0.5


def test_rand_augment_changes_grey_and_rgb_images():
    for images in (IMAGES, IMAGES[..., :1]):
        changed, _ = augmented(images, rand_augment=0.5)
        assert changed.shape == images.shape
        assert np.abs(changed - images).mean() > 5


def test_small_magnitude_neither_inverts_nor_coarsens():
    values = np.arange(256, dtype=np.float32).reshape(1, 16, 16, 1)
    small, full = _rand_augment(0.1), _rand_augment(1.0)
    solarized = to_numpy(small.solarization(values, training=True))
    # 0.9 of 255 is 229.5. Brighter pixels are inverted.
    np.testing.assert_array_equal(solarized, np.where(values > 229.5, 255 - values, values))
    np.testing.assert_array_equal(to_numpy(small.random_posterization(values, training=True)), values)
    np.testing.assert_array_equal(to_numpy(full.random_posterization(values, training=True)), values // 16 * 16)


def test_nothing_changes_if_everything_is_off():
    changed, labels = augmented()
    assert np.array_equal(changed, IMAGES)
    assert np.array_equal(labels, LABELS)
    assert not AugmentSettings(fill="nearest").is_on


# --- labels


def test_mixup_mixes_labels_as_it_mixes_images():
    changed, labels = augmented(mixup=0.4)
    # (images, images) x (images, pixels)
    expected = labels @ IMAGES.reshape(64, -1).astype(float)
    np.testing.assert_allclose(changed.reshape(64, -1), expected, atol=0.51)
    assert (labels.max(axis=1) < 0.99).sum() > 10


def test_cutmix_mixes_labels_by_area():
    changed, labels = augmented(cutmix=1.0)
    for number, (after, label) in enumerate(zip(changed, labels, strict=True)):
        kept = (after == IMAGES[number]).all(axis=-1)
        # The rectangle's edges lie between pixels, so each may include one pixel more or less.
        assert label[number] == pytest.approx(kept.mean(), abs=(12 + 16 + 1) / (12 * 16))
        assert label.sum() == pytest.approx(1)
        other = np.argsort(label)[-1 if np.argmax(label) != number else -2]
        assert np.array_equal(after[~kept], IMAGES[other][~kept])


@pytest.mark.parametrize(
    ("augment", "train", "message"),
    [
        ({"mixup": 0.2, "cutmix": 1.0}, {}, "take one of them"),
        ({"cutmix": 1.0}, {"class_weights": "balanced"}, "train.class_weights needs images of one class each"),
    ],
)
def test_settings_that_contradict_are_refused(image_set, augment, train, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        settings(image_set, augment=augment, **train)


def test_padding_that_could_leave_nothing_is_refused(image_set):
    with pytest.raises(ConfigError, match=r"augment.crop_padding=16 could leave nothing of images of 16 x 16"):
        RecordedFit().fit(image_set, settings(image_set, augment={"crop_padding": 16}))


# --- training


def test_augmentation_is_not_part_of_the_model(image_set):
    given = settings(image_set, epochs=1, augment=EVERYTHING)
    model, _ = RecordedFit().fit(image_set, given)
    plain = new_model(image_set, given)
    assert [layer.name for layer in model.layers] == [layer.name for layer in plain.layers]
    assert type(model) is type(plain)
    assert [variable.path for variable in model.variables] == [variable.path for variable in plain.variables]


def test_images_are_changed_in_training_and_not_in_validation(image_set):
    black = {"shift": 1.0, "erasing": 1.0, "mixup": 1.0}
    given = settings(image_set, epochs=3, patience=0, learning_rate=3e-3, model=LENET)
    history = RecordedFit().fit(image_set, given)[1]
    spoiled = RecordedFit().fit(image_set, given.model_copy(update={"augment": AugmentSettings(**black)}))[1]
    assert history["accuracy"][-1] > 0.9
    assert spoiled["accuracy"][-1] < 0.8
    # The loss differs, but validation has the same images.
    assert max(spoiled["val_accuracy"]) > max(spoiled["accuracy"])


def embedded(image_shape, classes):
    """Return a model with a weight per position, as in a Vision Transformer. The gradient of that weight is sparse."""
    images = keras.Input(image_shape)
    rows = keras.layers.Reshape((image_shape[0], -1))(images)
    positions = keras.layers.Embedding(image_shape[0], image_shape[1] * image_shape[2], name="positions")
    # The row numbers, from 0, for each image.
    numbers = keras.ops.cumsum(keras.ops.ones_like(rows[..., 0]), axis=1) - 1
    summed = keras.layers.Add()([rows, positions(numbers)])
    return keras.Model(images, keras.layers.Dense(classes)(keras.layers.Flatten()(summed)))


def test_model_with_an_embedding_is_trained(image_set):
    own = {"name": f"{__name__}:embedded"}
    given = settings(image_set, epochs=2, model=own, augment={"shift": 0.01})
    before = new_model(image_set, given).get_layer("positions").get_weights()[0]
    model, history = RecordedFit().fit(image_set, given)
    assert history["loss"][1] < history["loss"][0]
    assert np.abs(model.get_layer("positions").get_weights()[0] - before).max() > 0


@pytest.mark.full
def test_resumed_training_sees_the_same_images(image_set, tmp_path):
    given = settings(image_set, epochs=3, patience=0, augment={"rotation": 10, "cutmix": 1.0})
    whole, history = RecordedFit().fit(image_set, given, folder=tmp_path)
    resumed, same = RecordedFit().fit(image_set, given, resume_from=checkpoint_folder(tmp_path, 1))
    # Threads may add floats in another order. Other images would have another loss.
    assert same["loss"] == pytest.approx(history["loss"], rel=1e-3)
    for ours, theirs in zip(resumed.trainable_weights, whole.trainable_weights, strict=True):
        np.testing.assert_allclose(to_numpy(ours), to_numpy(theirs), atol=1e-3)


# --- the picture


@pytest.mark.full
def test_picture_of_a_batch_is_written(image_set, tmp_path):
    path = tmp_path / "new" / "batch.png"
    shown = {"data": {"path": image_set.folder.uri, "images": 9}, "output": {"path": str(path)}}
    assert show_batch(ShowSettings(**shown, augment={"rotation": 20})) == path
    once = path.read_bytes()
    assert once.startswith(b"\x89PNG")
    show_batch(ShowSettings(**shown, augment={"cutmix": 1.0}))
    assert path.read_bytes() != once
    show_batch(ShowSettings(**shown, augment={"rotation": 20}))
    assert path.read_bytes() == once


def test_picture_shows_an_example_if_nothing_is_set(image_set, tmp_path):
    shown = {"data": {"path": image_set.folder.uri}, "output": {"path": str(tmp_path / "batch.png")}}
    example = show_batch(ShowSettings(**shown)).read_bytes()
    given = {"rotation": 10, "shift": 0.1, "zoom": 0.1}
    assert show_batch(ShowSettings(**shown, augment=given)).read_bytes() == example


def test_unwritable_output_path_is_refused(image_set, tmp_path):
    data = {"path": image_set.folder.uri}
    (tmp_path / "file").touch()
    output = {"path": str(tmp_path / "file" / "batch.png")}
    with pytest.raises(ConfigError, match=r"output\.path=.*batch\.png cannot be written: .*; name another file"):
        show_batch(ShowSettings(data=data, augment={"flip": "both"}, output=output))
