"""Architectures: published sizes, logits, the computation of their layers, and functions of users."""

import gc
import os
import subprocess
import sys

import numpy as np
import pytest

from cnnlib.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

import keras  # noqa: E402
from keras.ops import convert_to_numpy as to_numpy  # noqa: E402
from keras.src.applications import convnext  # noqa: E402

from cnnlib.cost.layers import layer_costs, weightless  # noqa: E402
from cnnlib.errors import ConfigError  # noqa: E402
from cnnlib.models import ARCHITECTURES, build_model  # noqa: E402
from cnnlib.models.applications import with_fast_groups  # noqa: E402
from cnnlib.models.layers import ACTIVATIONS  # noqa: E402
from cnnlib.models.shufflenet import shuffle  # noqa: E402
from cnnlib.sealed.frozen.grouped_convolution import GroupedConv2D  # noqa: E402

CLASSES = 3


@pytest.fixture(autouse=True)
def forgotten():
    """Without this, all models would stay in memory, and each garbage collection would visit all their layers."""
    yield
    keras.backend.clear_session()
    gc.collect()


def images_of(labels: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Return noise that is brighter for a higher label."""
    noise = np.random.default_rng(0).integers(0, 120, (len(labels), *shape))
    return (noise + 60 * labels[:, None, None, None]).astype(np.uint8)


def small_shape(name: str, channels: int = 3) -> tuple[int, int, int]:
    side = max(ARCHITECTURES[name].smallest_side, 28)
    return side, side, channels


# --- size


def weights_of(name: str, side: int, classes: int, **options) -> tuple[int, int]:
    """Return the numbers of (all, trainable) parameters for RGB images, from the shapes of the weights."""
    with weightless():
        costs = layer_costs(build_model(name, image_shape=(side, side, 3), classes=classes, **options))
    return sum(cost.parameters for cost in costs), sum(cost.trainable for cost in costs)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        # Documentation of torchvision, "num_params".
        ("alexnet", 61_100_840),
        ("vgg11", 132_863_336),
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnext50_32x4d", 25_028_904),
        ("shufflenet_v2", 2_278_604),
        ("convnext_tiny", 28_589_128),
        # Table 1 of Szegedy et al. (2014), with biases. The table itself rounds.
        ("googlenet", 6_998_552),
    ],
)
def test_own_architecture_trains_the_published_parameters(name, published):
    assert weights_of(name, 224, 1000)[1] == published


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "side", "published"),
    # The models of keras.io/api/applications, by `Model.count_params`.
    [
        ("vgg16", 224, 138_357_544),
        ("vgg19", 224, 143_667_240),
        ("inception_v3", 299, 23_851_784),
        ("resnet50", 224, 25_636_712),
        ("resnet101", 224, 44_707_176),
        ("resnet152", 224, 60_419_944),
        ("densenet121", 224, 8_062_504),
        ("densenet169", 224, 14_307_880),
        ("mobilenet", 224, 4_253_864),
        ("mobilenet_v2", 224, 3_538_984),
        ("efficientnet_v2_b0", 224, 7_200_312),
    ],
)
def test_keras_architecture_has_the_published_parameters(name, side, published):
    assert weights_of(name, side, 1000)[0] == published


def test_nin_for_cifar_has_the_published_parameters():
    # 5*5*3*192, 192*160, 160*96; 5*5*96*192, 192*192 twice; 3*3*192*192, 192*192, 192*10; and biases
    convolutions = 14_592 + 30_880 + 15_456 + 460_992 + 2 * 37_056 + 331_968 + 37_056 + 1_930
    assert weights_of("nin", 32, 10) == (convolutions, convolutions)


def test_lstm_has_four_gates():
    # (28 pixels + 128 state values + bias) * 128 * 4, and 128 * 10 + 10
    model = build_model("lstm_rows", image_shape=(28, 28, 1), classes=10)
    assert model.count_params() == (28 + 128 + 1) * 128 * 4 + 1290


@pytest.mark.parametrize(("name", "by"), [("googlenet", "inception_3a"), ("resnet18", "stage_1_block_1_add")])
def test_stem_for_cifar_keeps_the_size_of_images(name, by):
    assert build_model(name, image_shape=(32, 32, 3), classes=10).get_layer(by).output.shape[1:3] == (32, 32)
    with weightless():
        assert build_model(name, image_shape=(224, 224, 3), classes=10).get_layer(by).output.shape[1:3] in (
            (28, 28),
            (56, 56),
        )


@pytest.mark.full
@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if ARCHITECTURES[name].smallest_side > 1])
def test_smallest_image_is_taken_and_a_smaller_one_refused(name):
    side = ARCHITECTURES[name].smallest_side
    with weightless():
        assert build_model(name, image_shape=(side, side, 3), classes=2).output_shape == (None, 2)
    with pytest.raises(ConfigError, match=f"model.name={name} needs images of at least {side} x {side} pixels"):
        build_model(name, image_shape=(side, side - 1, 3), classes=2)


# --- computation


@pytest.mark.full
@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_architecture_gives_logits_in_float32(name, channels):
    with weightless():
        model = build_model(name, image_shape=small_shape(name, channels), classes=CLASSES)
    assert (model.output.shape, model.output.dtype) == ((None, CLASSES), "float32")
    # Probabilities would come from a softmax. The input of the last layer with weights is the embedding.
    head = model.layers[-1]
    assert (head.name, head.activation, len(head.input.shape)) == ("logits", keras.activations.linear, 2)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", ["lenet", "mlp"])
def test_every_activation_reaches_hidden_layers(name, activation):
    model = build_model(name, image_shape=(28, 28, 1), classes=10, activation=activation)
    if activation == "maxout":
        hidden = [layer for layer in model.layers if layer.name.startswith(("conv_", "hidden_"))]
        maxima = [layer for layer in hidden if isinstance(layer, keras.layers.Maximum)]
        assert (len(hidden), len(maxima)) in ((9, 3), (6, 2))
    else:
        of_layers = {layer.activation for layer in model.layers if layer.name.startswith(("conv_", "hidden_"))}
        assert of_layers == {keras.activations.get(activation)}


def test_maxout_is_the_larger_of_two_pieces():
    keras.utils.set_random_seed(0)  # with some weights, one piece is the larger one for every image
    model = build_model("mlp", image_shape=(4, 4, 1), classes=2, activation="maxout", units=(5,))
    images = images_of(np.arange(3), (4, 4, 1))
    inner = keras.Model(
        model.inputs, [model.get_layer(name).output for name in ("hidden_1_piece_1", "hidden_1_piece_2", "hidden_1")]
    )
    first, second, both = map(to_numpy, inner(images))
    np.testing.assert_array_equal(both, np.maximum(first, second))
    assert (first > second).any()
    assert (second > first).any()


def test_maxout_with_batch_normalisation_is_refused():
    with pytest.raises(ConfigError, match="activation=maxout does not work with batch normalisation"):
        build_model("resnet18", image_shape=(32, 32, 3), classes=2, activation="maxout")


def test_shuffle_gives_each_group_channels_of_all_groups():
    channels = keras.Input((1, 1, 6))
    model = keras.Model(channels, shuffle(channels, 3, "unit"))
    dealt = to_numpy(model(np.arange(6, dtype=np.float32).reshape(1, 1, 1, 6)))
    assert dealt.ravel().tolist() == [0, 2, 4, 1, 3, 5]


@pytest.mark.parametrize("stride", [1, 2])
def test_grouped_convolution_is_that_of_each_group(stride):
    keras.utils.set_random_seed(0)
    values = np.random.default_rng(0).normal(size=(2, 7, 7, 6)).astype(np.float32)
    layer = GroupedConv2D(4, 3, stride, padding="same", groups=2)
    together = to_numpy(layer(values))
    for group in (0, 1):
        alone = keras.layers.Conv2D(2, 3, stride, padding="same", use_bias=False)
        alone.build((None, 7, 7, 3))
        alone.kernel.assign(layer.kernel[..., 2 * group : 2 * group + 2])
        expected = to_numpy(alone(values[..., 3 * group : 3 * group + 3]))
        np.testing.assert_allclose(together[..., 2 * group : 2 * group + 2], expected, rtol=1e-4, atol=1e-5)


def test_fast_groups_compute_the_same():
    model = convnext.ConvNeXt(
        depths=[1] * 4,
        projection_dims=[4, 8, 12, 16],
        include_top=False,
        include_preprocessing=False,
        weights=None,
        input_shape=(32, 32, 3),
    )
    faster = with_fast_groups(model, keep_weights=True)
    values = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)

    np.testing.assert_allclose(to_numpy(faster(values)), to_numpy(model(values)), rtol=1e-4, atol=1e-5)

    groups = [(layer.groups, type(layer)) for layer in faster.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [group for group in groups if group[0] > 1] == [(width, GroupedConv2D) for width in (4, 8, 12, 16)]
    assert [layer.name for layer in faster.layers] == [layer.name for layer in model.layers]


def test_model_without_groups_is_returned_unchanged():
    model = keras.applications.MobileNet((32, 32, 3), alpha=0.25, include_top=False, weights=None)
    assert with_fast_groups(model, keep_weights=True) is model


GROUPS = """
import sys
from cnnlib.quiet import import_tensorflow_quietly
import_tensorflow_quietly(in_task=True)
import keras, numpy as np, tensorflow as tf
from cnnlib.sealed.frozen.grouped_convolution import GroupedConv2D, _has_groups
keras.utils.set_random_seed(0)
images = np.random.default_rng(0).normal(size=(8, 6, 6, 4)).astype("float32")
network = keras.Sequential([GroupedConv2D(8, 3, groups=4, activation="relu", dtype=sys.argv[1]), keras.layers.Flatten(),
    keras.layers.Dense(2)])
network.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
print(_has_groups(tf.as_dtype(network.layers[0].compute_dtype)))
losses = network.fit(images, np.arange(8) % 2, epochs=2, verbose=0).history["loss"]
assert losses[1] < losses[0], losses
assert np.isfinite(network.predict(images, verbose=0)).all()
"""


@pytest.mark.full
@pytest.mark.parametrize(
    ("given", "dtype", "own"),
    [
        ({}, "float32", True),
        ({"TF_ENABLE_ONEDNN_OPTS": "0"}, "float32", False),
        ({}, "mixed_float16", False),
    ],
)
def test_grouped_convolution_trains_with_and_without_tensorflows_own(given, dtype, own):
    unset = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    done = subprocess.run(
        [sys.executable, "-c", GROUPS, dtype], env=unset | given, check=True, stdout=subprocess.PIPE, text=True
    )
    assert done.stdout == f"{own}\n"


# --- a user's own


def own_model(image_shape, classes, width=4):
    return keras.Sequential(
        [
            keras.Input(image_shape),
            keras.layers.Conv2D(width, 3, name="own_conv"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(classes, name="own_logits"),
        ]
    )


def model_with_another_class(image_shape, classes):
    return own_model(image_shape, classes + 1)


def test_own_function_is_built_for_images_and_classes():
    name = f"{__name__}:own_model"
    model = build_model(name, image_shape=(20, 24, 3), classes=5, mean=(0.5,) * 3, std=(0.25,) * 3, width=7)
    assert (model.input_shape, model.output_shape) == ((None, 20, 24, 3), (None, 5))
    assert model.get_layer("own_conv").filters == 7
    # Its layers are layers of the model, after the same standardised pixels as in every model.
    assert [layer.name for layer in model.layers][1:4] == ["to_unit_range", "standardise", "own_conv"]
    assert model.layers[-1].name == "own_logits"


@pytest.mark.parametrize(
    ("function", "match"),
    [
        ("no_such_module_at_all:build", "cannot be imported"),
        (f"{__name__}:nothing", "has no nothing"),
        (f"{__name__}:images_of", "did not build for|must return a keras.Model"),
        (f"{__name__}:model_with_another_class", r"must return a model with logits of shape \(batch, 2\)"),
    ],
)
def test_own_function_that_cannot_be_used_is_refused(function, match):
    with pytest.raises(ConfigError, match=match):
        build_model(function, image_shape=(8, 8, 1), classes=2)


def test_slim_resnet_has_less_than_a_million_parameters():
    model = build_model("resnet18", image_shape=(28, 28, 1), classes=10, filters=[16, 32, 64, 128])
    assert [model.get_layer(f"stage_{stage}_block_2_add").output.shape[-1] for stage in range(1, 5)] == [
        16,
        32,
        64,
        128,
    ]
    assert model.count_params() == 703_578


def test_resnet_with_too_few_stages_is_refused():
    with pytest.raises(ConfigError, match=r"model.options do not fit resnet18: .*argument 2 is longer"):
        build_model("resnet18", image_shape=(28, 28, 1), classes=10, filters=[16, 32])
