"""Models: the catalogue, LeNet and ResNet, standardised pixels, and refusals."""

import numpy as np
import pytest

from cnnlib.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

import keras  # noqa: E402
from keras.ops import convert_to_numpy as to_numpy  # noqa: E402

from cnnlib.config import ARCHITECTURE_NAMES  # noqa: E402
from cnnlib.config import model as model_settings  # noqa: E402
from cnnlib.errors import ConfigError  # noqa: E402
from cnnlib.models import ARCHITECTURES, build_model  # noqa: E402
from cnnlib.models.layers import standardise  # noqa: E402


def standardised(images: np.ndarray, mean, std) -> np.ndarray:
    pixels = keras.Input(images.shape[1:], dtype="uint8")
    return to_numpy(keras.Model(pixels, standardise(pixels, mean, std))(images))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


# --- LeNet


def test_lenet_has_the_parameters_of_its_form():
    model = build_model("lenet", image_shape=(28, 28, 1), classes=10, mean=(0.13,), std=(0.31,))
    # 5*5*1*20+20, 5*5*20*50+50, 4*4*50*500+500, 500*10+10
    assert sum(np.prod(weight.shape) for weight in model.trainable_weights) == 520 + 25_050 + 400_500 + 5_010 == 431_080


def test_input_is_uint8_and_named_image():
    model = build_model("lenet", image_shape=(28, 28, 1), classes=10)
    (images,) = model.inputs
    assert (images.name, images.dtype, tuple(images.shape)) == ("image", "uint8", (None, 28, 28, 1))


def test_option_reaches_the_architecture():
    model = build_model("lenet", image_shape=(28, 28, 1), classes=10, activation="tanh")
    used = {layer.activation for layer in model.layers if isinstance(layer, keras.layers.Conv2D)}
    assert used == {keras.activations.tanh}


def test_mean_and_deviation_are_part_of_the_graph():
    keras.utils.set_random_seed(0)
    plain = build_model("lenet", image_shape=(28, 28, 1), classes=10)
    sealed = build_model("lenet", image_shape=(28, 28, 1), classes=10, mean=(0.4,), std=(0.2,))
    for source, target in zip(plain.trainable_weights, sealed.trainable_weights, strict=True):
        target.assign(source)
    images = noise(2, 28, 28, 1)
    inner = keras.Model(plain.get_layer("to_unit_range").output, plain.output)
    by_hand = to_numpy(inner(((images / 255 - 0.4) / 0.2).astype(np.float32)))
    np.testing.assert_allclose(to_numpy(sealed(images)), by_hand, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(15, 28, 1), (28, 15, 3), (4, 4, 1)])
def test_image_too_small_is_a_config_error(shape):
    with pytest.raises(ConfigError, match=f"at least 16 x 16 pixels, received {shape[0]} x {shape[1]}"):
        build_model("lenet", image_shape=shape, classes=10)


def test_smallest_image_is_taken():
    assert build_model("lenet", image_shape=(16, 16, 1), classes=3).output_shape == (None, 3)


def test_settings_name_every_architecture():
    assert tuple(ARCHITECTURES) == ARCHITECTURE_NAMES


@pytest.fixture
def declare(tmp_path, monkeypatch):
    """Return a function that takes source text by module name, and returns (name, module, is_pretrained) of each."""

    def declared(**sources: str) -> list[tuple[str, str, bool]]:
        (tmp_path / "models").mkdir()
        for module, source in sources.items():
            (tmp_path / "models" / f"{module}.py").write_text(source)
        monkeypatch.setattr(model_settings, "files", lambda package: tmp_path)
        return [(one.name, one.module, one.is_pretrained) for one in model_settings._declared_architectures()]

    return declared


def test_architectures_of_a_new_module_come_last(declare):
    found = declare(
        a_new_one='ARCHITECTURES = (keras_application("new", build), Architecture("newer", build))',
        layers="ACTIVATIONS = (1, 2)",
        lenet='ARCHITECTURES = (Architecture("lenet", build),)',
    )
    assert found == [("lenet", "lenet", False), ("new", "a_new_one", True), ("newer", "a_new_one", False)]


def test_declaration_without_a_plain_name_is_refused(declare):
    with pytest.raises(TypeError, match=r"cnnlib\.models\.new declares Architecture\(NAME, build\)"):
        declare(new="ARCHITECTURES = (Architecture(NAME, build),)")


def test_unknown_name_is_a_config_error():
    with pytest.raises(ConfigError, match="model.name=lennet is unknown; take one of mlp, lenet"):
        build_model("lennet", image_shape=(28, 28, 1), classes=10)


@pytest.mark.parametrize(
    "options",
    [{"depth": 3}, {"activation": "no such"}, {"activation": 3}],
    ids=str,
)
def test_option_that_does_not_fit_is_a_config_error(options):
    with pytest.raises(ConfigError, match="model.options"):
        build_model("lenet", image_shape=(28, 28, 1), classes=10, **options)


# --- ResNet


@pytest.mark.parametrize(
    ("side", "options", "last"),
    [(64, {}, 2), (63, {}, 8), (32, {}, 4), (32, {"stem": "imagenet"}, 1), (96, {"stem": "cifar"}, 12)],
)
def test_small_images_get_the_stem_of_cifar(side, options, last):
    model = build_model("resnet18", image_shape=(side, side, 3), classes=10, **options)
    assert model.get_layer("pool").input.shape == (None, last, last, 512)


def test_unknown_stem_is_a_config_error():
    with pytest.raises(ConfigError, match="choose one of auto, imagenet, cifar"):
        build_model("resnet18", image_shape=(32, 32, 3), classes=10, stem="none")


@pytest.mark.full
def test_resnet_learns():
    keras.utils.set_random_seed(1)
    model = build_model("resnet18", image_shape=(16, 16, 1), classes=2, mean=(0.5,), std=(0.3,))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    labels = np.arange(16) % 2
    images = (noise(16, 16, 16, 1) // 4 + 150 * labels[:, None, None, None]).astype(np.uint8)
    losses = [model.train_on_batch(images, labels) for _ in range(4)]
    assert losses[-1] < losses[0] / 2


# --- pixels


def test_standardised_pixels_have_mean_0_and_deviation_1():
    images = np.stack([noise(50, 9, 7) // 2, noise(50, 9, 7), 255 - noise(50, 9, 7) // 8], axis=-1)
    scaled = images / 255
    values = standardised(images, tuple(scaled.mean(axis=(0, 1, 2))), tuple(scaled.std(axis=(0, 1, 2))))
    np.testing.assert_allclose(values.mean(axis=(0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(values.std(axis=(0, 1, 2)), 1, atol=1e-4)
    assert values.dtype == np.float32


def test_pixels_are_scaled_to_0_to_1_without_mean_and_deviation():
    images = np.array([0, 51, 255], np.uint8).reshape(1, 1, 3, 1)
    np.testing.assert_allclose(standardised(images, None, None).ravel(), [0, 0.2, 1], atol=1e-6)


def test_constant_channel_stays_finite_and_keeps_its_scale():
    images = np.stack([noise(4, 5, 6), np.full((4, 5, 6), 77, np.uint8)], axis=-1)
    values = standardised(images, (0.5, 77 / 255), (0.3, 0.0))
    assert np.isfinite(values).all()
    np.testing.assert_allclose(values[..., 1], 0, atol=1e-6)
    # A value that training never saw stays finite: it is only off by its difference.
    images[..., 1] = 128
    np.testing.assert_allclose(standardised(images, (0.5, 77 / 255), (0.3, 0.0))[..., 1], 51 / 255, atol=1e-6)
