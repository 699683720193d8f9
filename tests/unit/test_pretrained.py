"""Weights from elsewhere: copied weights, standardised pixels, and refusals of missing or unfit weights."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from cnnlib.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

import keras  # noqa: E402

from cnnlib.config.imagenet import ImagenetName  # noqa: E402
from cnnlib.errors import ConfigError  # noqa: E402
from cnnlib.models import ARCHITECTURES, build_model  # noqa: E402
from cnnlib.models.layers import standardise  # noqa: E402
from cnnlib.models.nested import flat_layers  # noqa: E402
from cnnlib.models.pretrained import build_imagenet, build_pretrained, head_of  # noqa: E402

APPLICATIONS = {name: known.application for name, known in ARCHITECTURES.items() if known.application}
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
MODULES = {
    "vgg16": "vgg16",
    "vgg19": "vgg19",
    "inception_v3": "inception_v3",
    "resnet50": "resnet",
    "resnet101": "resnet",
    "resnet152": "resnet",
    "densenet121": "densenet",
    "densenet169": "densenet",
    "mobilenet": "mobilenet",
    "mobilenet_v2": "mobilenet_v2",
}


def logits_of(model: keras.Model, images: np.ndarray = IMAGES) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(images, training=False))


# --- weights from ImageNet


def test_every_keras_application_has_its_preprocessing():
    built_by_keras = {
        name for name, known in ARCHITECTURES.items() if "application" in getattr(known.build, "keywords", {})
    }
    assert set(APPLICATIONS) == built_by_keras == set(get_args(ImagenetName))


@pytest.mark.parametrize("name", MODULES)
def test_preprocessing_equals_that_of_keras(name):
    preprocessing = APPLICATIONS[name].preprocessing
    pixels = keras.Input((32, 32, 3), dtype="uint8")
    ours = logits_of(keras.Model(pixels, standardise(pixels, preprocessing.mean, preprocessing.std)))
    if preprocessing.is_bgr:
        ours = ours[..., ::-1]
    theirs = getattr(keras.applications, MODULES[name]).preprocess_input(IMAGES.astype(np.float32))
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


@pytest.mark.parametrize("name", ["efficientnet_v2_b0", "convnext_tiny"])
def test_preprocessing_equals_that_of_the_models_own_layers(name):
    """In these models, Keras has layers instead of `preprocess_input`."""
    application = APPLICATIONS[name]
    pixels = application.preprocessing
    whole = application.build(include_top=False, weights=None, input_shape=(32, 32, 3), include_preprocessing=True)
    normalised = [layer for layer in whole.layers if "normalization" in layer.name and hasattr(layer, "input_mean")]
    scale = 255 if name == "convnext_tiny" else 1
    # The layer of ConvNeXt is in a model inside the model.
    layers = normalised or [one for layer in whole.layers if hasattr(layer, "layers") for one in layer.layers]
    layer = next(layer for layer in layers if hasattr(layer, "input_mean"))
    np.testing.assert_allclose(np.ravel(layer.input_mean) / scale, pixels.mean, rtol=1e-5)
    np.testing.assert_allclose(np.sqrt(np.ravel(layer.input_variance)) / scale, pixels.std, rtol=1e-5)


@pytest.fixture(scope="module")
def resnet_weights(tmp_path_factory) -> tuple[keras.Model, Path]:
    """Return a model without its head, of a kind that was trained on BGR, and a file of its weights."""
    keras.utils.set_random_seed(1)
    body = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg")
    path = tmp_path_factory.mktemp("weights") / "body.weights.h5"
    body.save_weights(path)
    return body, path


def test_weights_from_a_file_compute_the_same_as_in_keras(resnet_weights):
    body, path = resnet_weights
    model = build_pretrained("resnet50", str(path), image_shape=(32, 32, 3), classes=5)
    features = keras.Model(model.input, head_of(model).input)
    preprocessed = keras.applications.resnet.preprocess_input(IMAGES.astype(np.float32))
    np.testing.assert_allclose(logits_of(features), logits_of(body, preprocessed), rtol=1e-3, atol=1e-4)
    assert model.output_shape == (None, 5)


def test_imagenet_model_keeps_its_head(tmp_path):
    keras.utils.set_random_seed(1)
    source = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3), classifier_activation=None)
    source.save_weights(tmp_path / "whole.weights.h5")
    model = build_imagenet("mobilenet_v2", (32, 32, 3), str(tmp_path / "whole.weights.h5"))
    preprocessed = keras.applications.mobilenet_v2.preprocess_input(IMAGES.astype(np.float32))
    np.testing.assert_allclose(logits_of(model), logits_of(source, preprocessed), rtol=1e-3, atol=1e-5)
    assert model.output_shape == (None, 1000)


# Keras reads the variable KERAS_HOME when it is imported, so one new process serves both tests.
NEW_KERAS_HOME = """
import os
from pathlib import Path
from cnnlib.quiet import import_tensorflow_quietly
import_tensorflow_quietly(in_task=True)
import h5py, keras, numpy as np
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group
from cnnlib.errors import ConfigError
from cnnlib.models.pretrained import build_pretrained, imagenet_classes

def build():
    return build_pretrained("mobilenet_v2", "imagenet", image_shape=(96, 96, 3), classes=5)

for download in (
    build, lambda: build_pretrained("resnet50", "imagenet", image_shape=(64, 64, 3), classes=5), imagenet_classes
):
    try:
        download()
    except ConfigError as error:
        print("REFUSED", error)

keras.utils.set_random_seed(1)
source = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(96, 96, 3))
# The published files have the older format of Keras.
name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_96_no_top.h5"
folder = Path(os.environ["KERAS_HOME"], "models")
folder.mkdir(exist_ok=True)
with h5py.File(folder / name, "w") as file:
    save_weights_to_hdf5_group(file, source)
assert np.array_equal(build().get_layer("Conv1").get_weights()[0], source.get_layer("Conv1").get_weights()[0])
print("LOADED")
"""


@pytest.fixture(scope="module")
def new_keras_home(tmp_path_factory) -> tuple[Path, list[str]]:
    """The folder, and the lines of a process that downloads in vain, gets a file into the folder, and uses it."""
    home = tmp_path_factory.mktemp("keras")
    # Nobody listens at this port, so the download fails at once, with or without a network.
    nowhere = {"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "KERAS_HOME": str(home)}
    ended = subprocess.run(
        [sys.executable, "-c", NEW_KERAS_HOME], env=os.environ | nowhere, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return home, ended.stdout.splitlines()


@pytest.mark.full
def test_failed_download_says_where_to_put_the_file(new_keras_home):
    home, lines = new_keras_home
    refused = [line for line in lines if line.startswith("REFUSED")]
    files = [
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_96_no_top.h5",
        "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "imagenet_class_index.json",
    ]
    assert len(refused) == len(files)
    for line, file in zip(refused, files, strict=True):
        assert "could not be downloaded" in line
        assert line.endswith(f"put the file at {home}/models/{file}")


@pytest.mark.full
def test_file_from_another_machine_is_used(new_keras_home):
    assert new_keras_home[1][-1:] == ["LOADED"]


# --- weights from trained models


def test_weights_and_standardisation_are_copied_without_the_head(tmp_path):
    source = build_model("lenet", image_shape=(16, 16, 1), classes=3, mean=(0.3,), std=(0.2,))
    source.save(tmp_path / "model.keras")
    for weights in (str(tmp_path / "model.keras"), str(tmp_path)):
        model = build_pretrained("lenet", weights, image_shape=(16, 16, 1), classes=7)
        for name in ("conv_1", "conv_2", "hidden_1"):
            for ours, theirs in zip(
                model.get_layer(name).get_weights(), source.get_layer(name).get_weights(), strict=True
            ):
                np.testing.assert_array_equal(ours, theirs)
        layer = model.get_layer("standardise")
        np.testing.assert_allclose([np.ravel(layer.input_mean)[0], np.ravel(layer.input_variance)[0]], [0.3, 0.04])
        assert model.output_shape == (None, 7)


def test_head_is_new_even_for_the_same_number_of_classes(tmp_path):
    source = build_model("lenet", image_shape=(16, 16, 1), classes=3)
    source.save(tmp_path / "model.keras")
    model = build_pretrained("lenet", str(tmp_path), image_shape=(16, 16, 1), classes=3)
    ours, theirs = (one.get_layer("logits").get_weights()[0] for one in (model, source))
    assert not np.allclose(ours, theirs)


def own_model(image_shape, classes):
    """Build a model inside a model. Keras makes up the names of its layers."""
    features = keras.Sequential([keras.Input(image_shape), keras.layers.Conv2D(4, 3), keras.layers.Conv2D(5, 3)])
    images = keras.Input(image_shape)
    pooled = keras.layers.GlobalAveragePooling2D()(features(images))
    return keras.Model(images, keras.layers.Dense(classes)(keras.layers.Dense(6)(pooled)))


def test_layers_with_made_up_names_get_their_weights(tmp_path):
    name = f"{__name__}:own_model"
    source = build_model(name, image_shape=(16, 16, 1), classes=3)
    source.save(tmp_path / "model.keras")
    model = build_pretrained(name, str(tmp_path), image_shape=(16, 16, 1), classes=3)
    ours, theirs = ([layer for layer in flat_layers(one) if layer.weights] for one in (model, source))
    assert [layer.name for layer in ours] != [layer.name for layer in theirs]
    same = [
        np.array_equal(one.get_weights()[0], other.get_weights()[0]) for one, other in zip(ours, theirs, strict=True)
    ]
    assert same == [True, True, True, False]


# --- refusals


@pytest.mark.parametrize(
    ("name", "weights", "shape", "message"),
    [
        ("lenet", "imagenet", (32, 32, 3), r"model\.name=lenet has no weights from ImageNet; take one of vgg16, .*"),
        ("resnet50", "imagenet", (32, 32, 1), r"for RGB images, received 1 channel; ingest with image\.channels 3"),
        ("resnet50", "nowhere.h5", (32, 32, 3), r"nowhere\.h5"),
        ("lenet", "nowhere", (32, 32, 3), r"model\.weights=nowhere is not there; expected imagenet, a \.h5 or .*"),
    ],
)
def test_unusable_weights_are_refused(name, weights, shape, message):
    with pytest.raises(ConfigError, match=message):
        build_pretrained(name, weights, image_shape=shape, classes=5)


def test_model_with_its_own_head_takes_only_one_size():
    with pytest.raises(
        ConfigError, match=r"inception_v3 with its own head takes only images of one size.*\(299, 299, 3\)"
    ):
        build_imagenet("inception_v3", (224, 224, 3))


def test_weights_that_do_not_fit_are_refused_with_the_layer(tmp_path):
    build_model("lenet", image_shape=(16, 16, 1), classes=3, filters=[6, 16]).save(tmp_path / "model.keras")
    with pytest.raises(ConfigError, match=r"do not fit layer conv_1; take the model\.name"):
        build_pretrained("lenet", str(tmp_path), image_shape=(16, 16, 1), classes=3)


def damaged_archive(path: Path) -> None:
    """Change one byte of the weights, so that the checksum does not fit."""
    build_model("lenet", image_shape=(16, 16, 1), classes=3).save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def archive_without_a_model(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no model")


@pytest.mark.parametrize("write", [lambda path: path.write_text("no model"), damaged_archive, archive_without_a_model])
def test_file_that_is_no_model_is_refused(tmp_path, write):
    write(tmp_path / "model.keras")
    with pytest.raises(ConfigError, match=r"cannot be read as a Keras model"):
        build_pretrained("lenet", str(tmp_path), image_shape=(16, 16, 1), classes=3)


def test_model_without_weights_is_refused(tmp_path):
    images = keras.Input((16, 16, 1))
    keras.Model(images, keras.layers.Flatten()(images)).save(tmp_path / "model.keras")
    with pytest.raises(ConfigError, match=r"do not fit layer conv_1"):
        build_pretrained("lenet", str(tmp_path), image_shape=(16, 16, 1), classes=3)
