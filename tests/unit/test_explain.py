"""Convolutions by hand and by Keras, and the filters, feature maps and Grad-CAM of models with known answers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from cnnlib.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

import keras  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.text import Text  # noqa: E402
from PIL import Image  # noqa: E402
from scipy.signal import correlate2d  # noqa: E402

from cnnlib.cost.layers import weightless  # noqa: E402
from cnnlib.errors import ConfigError  # noqa: E402
from cnnlib.explain import figures  # noqa: E402
from cnnlib.explain.convolution import average_pool, cross_correlate, draw_cases, max_pool, output_size  # noqa: E402
from cnnlib.explain.feature_maps import feature_maps, filters_of, map_layers  # noqa: E402
from cnnlib.explain.grad_cam import grad_cam, last_maps  # noqa: E402
from cnnlib.explain.gradient_flow import relative_gradients  # noqa: E402
from cnnlib.explain.labels import label_points  # noqa: E402
from cnnlib.models import build_model  # noqa: E402

NINE = np.arange(9).reshape(3, 3)
FOUR = np.arange(4).reshape(2, 2)

# --- arithmetic


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, [[19, 25], [37, 43]]),
        ({"padding": 1, "stride": (3, 2)}, [[0, 8], [6, 8]]),
        # Zeros only at the sides, and a stride across: the kernel covers columns -1 and 0, then columns 2 and 3.
        ({"padding": (0, 1), "stride": (2, 3)}, [[1 * 0 + 3 * 3, 0 * 2 + 2 * 5]]),
        # With a dilation of 2, the kernel covers the four corners.
        ({"dilation": 2}, [[0 * 0 + 1 * 2 + 2 * 6 + 3 * 8]]),
        # TensorFlow puts an odd zero at the end.
        ({"padding": "same"}, [[19, 25, 10], [37, 43, 16], [7, 8, 0]]),
    ],
)
def test_cross_correlation_by_hand(arguments, expected):
    assert cross_correlate(NINE, FOUR, **arguments).tolist() == expected


def test_channels_are_added_and_filters_are_kept_apart():
    image = np.stack([NINE, NINE + 1], axis=-1)
    kernel = np.stack([FOUR, FOUR + 1], axis=-1)
    both = cross_correlate(image, np.stack([kernel, 2 * kernel], axis=-1))
    assert both[..., 0].tolist() == [[56, 72], [104, 120]]
    assert both[..., 1].tolist() == [[112, 144], [208, 240]]


def test_pixels_of_eight_bits_do_not_overflow():
    assert cross_correlate(np.full((2, 2), 255, np.uint8), np.full((2, 2), 2, np.uint8)).tolist() == [[2040]]


def test_cross_correlation_is_scipys():
    random = np.random.default_rng(0)
    image, kernel = random.normal(size=(9, 7)), random.normal(size=(3, 2))
    np.testing.assert_allclose(cross_correlate(image, kernel), correlate2d(image, kernel, "valid"))
    padded = correlate2d(np.pad(image, 2), kernel, "valid")
    np.testing.assert_allclose(cross_correlate(image, kernel, padding=2), padded)


SMALL = st.tuples(st.integers(1, 3), st.integers(1, 3))


@examples(max_examples=60)
@given(
    image=st.tuples(st.integers(7, 14), st.integers(7, 14)),
    kernel=SMALL,
    channels=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    spacing=SMALL,
    dilated=st.booleans(),
    padding=st.sampled_from(["valid", "same"]),
    seed=st.integers(0, 100),
)
def test_cross_correlation_is_that_of_keras(image, kernel, channels, spacing, dilated, padding, seed):
    random = np.random.default_rng(seed)
    pixels = random.normal(size=(*image, channels[0])).astype(np.float32)
    weights = random.normal(size=(*kernel, *channels)).astype(np.float32)
    # Keras takes strides or dilation, not both.
    strides, dilation = ((1, 1), spacing) if dilated else (spacing, (1, 1))
    ours = cross_correlate(pixels, weights, stride=strides, padding=padding, dilation=dilation)
    theirs = keras.ops.conv(pixels[None], weights, strides=strides, padding=padding, dilation_rate=dilation)
    np.testing.assert_allclose(ours, np.asarray(theirs)[0], rtol=1e-3, atol=1e-4)


def test_drawn_cases_have_kerass_shapes_and_repeat_by_seed():
    cases = draw_cases(100, seed=3)
    for case in cases:
        layer = keras.layers.Conv2D(
            1, case.kernel, strides=case.strides, padding=case.padding, dilation_rate=case.dilation
        )
        assert case.output_shape == layer.compute_output_shape((1, *case.image, 1))[1:3]
    assert cases == draw_cases(100, seed=3) != draw_cases(100, seed=4)
    assert {case.padding for case in cases} == {"valid", "same"}
    assert any(case.strides != (1, 1) for case in cases)
    assert any(case.dilation != (1, 1) for case in cases)


def test_pooling_is_that_of_keras():
    image = np.random.default_rng(0).normal(size=(8, 11, 3)).astype(np.float32)
    for ours, theirs in (
        (max_pool(image, 2), keras.ops.max_pool(image[None], 2)),
        (max_pool(image, (3, 2), stride=(2, 3)), keras.ops.max_pool(image[None], (3, 2), (2, 3))),
        (average_pool(image, 3, stride=1), keras.ops.average_pool(image[None], 3, 1)),
    ):
        np.testing.assert_allclose(ours, np.asarray(theirs)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: output_size(3, 5), "kernel=5 with dilation 1 covers 5 pixels, the side has only 3"),
        (lambda: output_size(9, 3, stride=0), "stride=0 must be at least 1"),
        (lambda: output_size(9, 3, padding=-1), "padding=-1: give"),
        (lambda: output_size(9, 3, padding="full"), "padding=full: give"),
        (lambda: cross_correlate(NINE, FOUR[..., None]), "kernel has shape"),
        (lambda: cross_correlate(NINE[..., None], np.ones((2, 2, 3, 1))), "kernel has shape"),
        (lambda: max_pool(NINE[0], 2), "image has shape (3,)"),
        (lambda: max_pool(NINE, 4), "kernel=4"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(ask, message):
    with pytest.raises(ConfigError) as raised:
        ask()
    assert message in raised.value.message


# --- filters and maps


@pytest.fixture(scope="module")
def lenet() -> keras.Model:
    return build_model("lenet", image_shape=(28, 28, 1), classes=10, mean=(0.1,), std=(0.3,))


@pytest.fixture(scope="module")
def digit() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (28, 28, 1), np.uint8)


def test_feature_maps_are_the_outputs_of_the_layers(lenet, digit):
    maps = feature_maps(lenet, digit, ["standardise", "conv_1", "pool_1"])
    np.testing.assert_allclose(maps["standardise"], (digit / 255 - 0.1) / 0.3, rtol=1e-4, atol=1e-5)
    by_hand = np.maximum(cross_correlate(maps["standardise"], filters_of(lenet, "conv_1")), 0)
    np.testing.assert_allclose(maps["conv_1"], by_hand, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(maps["pool_1"], max_pool(maps["conv_1"], 2))


def test_layers_with_maps_are_named_in_order(lenet):
    assert map_layers(lenet) == ["to_unit_range", "standardise", "conv_1", "pool_1", "conv_2", "pool_2"]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda model, image: feature_maps(model, image, ["conv_3"]), "did you mean conv_2?"),
        (lambda model, image: feature_maps(model, image, ["?"]), "take one of to_unit_range, standardise, conv_1"),
        (lambda model, image: feature_maps(model, image, ["hidden_1"]), "layer=hidden_1 is no layer of lenet"),
        (
            lambda model, image: filters_of(model, "pool_1"),
            "has no filters, because it is a MaxPooling2D; take one of conv_1",
        ),
        (lambda model, image: feature_maps(model, image[1:], ["conv_1"]), "(27, 28, 1), lenet takes (28, 28, 1)"),
        (
            lambda model, image: grad_cam(model, image[None], [10]),
            "labels=[10] do not fit; give one label from 0 to 9, a class of lenet, for each of 1 images",
        ),
        (lambda model, image: grad_cam(model, image[None], [1, 2]), "labels=[1, 2]"),
        (lambda model, image: grad_cam(model, image[None], [1], layer="flatten"), "layer=flatten is no layer"),
    ],
)
def test_wrong_layers_and_images_are_refused_in_one_line(lenet, digit, ask, message):
    with pytest.raises(ConfigError) as raised:
        ask(lenet, digit)
    assert message in raised.value.message
    assert "\n" not in raised.value.message


# --- Grad-CAM


def stripes_model(side: int, stride: int = 1, trainable: bool = True) -> keras.Model:
    """Build a model: class 0 counts dark pixels above light ones, class 1 light above dark with twice the weight."""
    images = keras.Input((side, side, 1), dtype="uint8", name="image")
    values = keras.layers.Rescaling(1 / 255)(images)
    maps = keras.layers.Conv2D(
        2, (2, 1), stride, padding="same", activation="relu", name="stripes", trainable=trainable
    )(values)
    pooled = keras.layers.GlobalAveragePooling2D()(maps)
    model = keras.Model(images, keras.layers.Dense(2, name="logits", trainable=trainable)(pooled), name="striped")
    edges = np.array([[-1, 1], [1, -1]], np.float32).reshape(2, 1, 1, 2)
    model.get_layer("stripes").set_weights([edges, np.zeros(2)])
    model.get_layer("logits").set_weights([np.array([[1, 0], [0, 2]], np.float32), np.zeros(2)])
    return model


def stripes() -> np.ndarray:
    """Return 16 x 16 pixels: on the left, row 3 is dark above light; on the right, row 11 is light above dark."""
    image = np.full((16, 16, 1), 51, np.uint8)
    image[4:8, :8] = 255
    image[8:, :8] = 255
    image[:8, 8:] = 255
    image[8:12, 8:] = 255
    # The padding below the image is dark, so row 15 is an edge for class 1 and none for class 0.
    return image


def test_grad_cam_is_high_only_at_the_pattern_of_the_class():
    image = stripes()
    heats = grad_cam(stripes_model(16), np.stack([image, image]), [0, 1])
    expected = np.zeros((2, 16, 16), np.float32)
    # The edge of 0.8 times its weight, which is the logit's 1 or 2 over 256 pixels.
    expected[0, 3, :8] = 0.8 / 256
    expected[1, 11, 8:] = 0.8 * 2 / 256
    # Edges to the zeros below the image.
    expected[1, 15, :8] = 1.0 * 2 / 256
    expected[1, 15, 8:] = 0.2 * 2 / 256
    np.testing.assert_allclose(heats, expected, rtol=1e-5, atol=1e-9)


def test_grad_cam_explains_each_image_for_its_own_class():
    image = stripes()
    model = stripes_model(16)
    together = grad_cam(model, np.stack([image, image[::-1], image]), [0, 1, 1])
    apart = [grad_cam(model, one[None], [label])[0] for one, label in ((image, 0), (image[::-1], 1), (image, 1))]
    np.testing.assert_allclose(together, apart, rtol=1e-6)


def test_grad_cam_has_the_size_of_the_image():
    image = np.zeros((16, 16, 1), np.uint8)
    # Rows 2i and 2i + 1 of the image make row i of the maps, so this edge is at (2, 5) of one map.
    image[5, 10] = 255
    (heat,) = grad_cam(stripes_model(16, stride=2), image[None], [0])
    assert heat.shape == (16, 16)
    assert np.unravel_index(heat.argmax(), heat.shape) in {(4, 10), (4, 11), (5, 10), (5, 11)}
    # The heat ends halfway to the neighbouring values of the map, which are 0.
    assert set(zip(*np.nonzero(heat), strict=True)) == {(row, column) for row in range(3, 7) for column in range(9, 13)}
    assert heat.sum() == pytest.approx(4 * 1 / 64, rel=1e-5)


def test_grad_cam_of_frozen_layers_is_the_same():
    image = stripes()[None]
    frozen = grad_cam(stripes_model(16, trainable=False), image, [0])
    np.testing.assert_array_equal(frozen, grad_cam(stripes_model(16), image, [0]))


def own_model(image_shape, classes):
    return keras.Sequential(
        [
            keras.Input(image_shape),
            keras.layers.Conv2D(2, 3, name="own_conv"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(classes),
        ]
    )


def test_own_model_is_explained_in_memory_and_from_a_file(tmp_path):
    model = build_model(f"{__name__}:own_model", image_shape=(16, 16, 1), classes=2)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    image = stripes()
    layer = last_maps(loaded)
    np.testing.assert_allclose(grad_cam(model, image[None], [0]), grad_cam(loaded, image[None], [0]), rtol=1e-5)
    maps, expected = (feature_maps(one, image, [layer])[layer] for one in (model, loaded))
    np.testing.assert_allclose(maps, expected, rtol=1e-5)


def test_grad_cam_leaves_out_evidence_against_the_class():
    model, image = stripes_model(16), stripes()
    model.get_layer("logits").set_weights([np.array([[-1, 0], [0, 2]], np.float32), np.zeros(2)])
    assert not grad_cam(model, image[None], [0]).any()


def test_grad_cam_without_a_convolution_is_refused():
    model = build_model("mlp", image_shape=(28, 28, 1), classes=10)
    with pytest.raises(ConfigError, match="mlp has no convolution"):
        grad_cam(model, np.zeros((1, 28, 28, 1), np.uint8), [0])


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("lenet", "conv_2"),
        ("resnet18", "stage_4_block_2_relu"),
        ("googlenet", "inception_5b"),
    ],
)
def test_last_maps_include_the_whole_block(name, layer):
    model = build_model(name, image_shape=(64, 64, 3), classes=3)
    assert last_maps(model) == layer
    heat = grad_cam(model, np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8), [1])
    assert heat.shape == (1, 64, 64)
    assert np.isfinite(heat).all()
    assert (heat >= 0).all()


def test_last_maps_of_densenet_are_the_joined_maps():
    with weightless():
        model = build_model("densenet121", image_shape=(64, 64, 3), classes=3)
    assert last_maps(model) == "relu"


# --- gradients, figures


def test_gradient_vanishes_only_in_the_plain_stack():
    plain = relative_gradients(12, residual=False, normalised=False)
    residual = relative_gradients(12, residual=True, normalised=True)
    assert plain.shape == residual.shape == (12,)
    assert plain[-1] == residual[-1] == 1
    # With Glorot's weights, each ReLU halves the square of the gradient: 2 ** (-11 / 2) is 0.022.
    assert 0.005 < plain[0] < 0.1
    assert 0.5 < residual[0] < 20
    np.testing.assert_allclose(relative_gradients(12, residual=False, normalised=False), plain, rtol=1e-3)


def test_names_cover_no_name_and_no_point():
    random = np.random.default_rng(0)
    across, up = 10 ** random.uniform(6, 8, (2, 25))
    figure = Figure((10, 7), layout="constrained")
    axes = figure.subplots()
    axes.loglog(across, up, "o")
    labels = label_points(figure, axes, across, up, [f"model_{number}" for number in range(25)])
    boxes = [Text.get_window_extent(label) for label in labels]
    assert [label.get_text() for label in labels] == [f"model_{number}" for number in range(25)]
    assert sum(box.count_overlaps(boxes) for box in boxes) == len(boxes)
    points = axes.transData.transform(np.column_stack([across, up]))
    assert not any(box.contains(*point) for box in boxes for point in points)


@pytest.mark.parametrize(
    "figure",
    [
        lambda: figures.arithmetic_figure(NINE, FOUR, cross_correlate(NINE, FOUR), "title"),
        lambda: figures.filters_figure(np.ones((3, 3, 1, 40)), "title"),
        lambda: figures.maps_figure(np.zeros((4, 4, 7)), "title"),
        lambda: figures.grad_cam_figure(np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 8, 8)), "ab", "title"),
        lambda: figures.grad_cam_figure(np.zeros((0, 8, 8, 1), np.uint8), np.zeros((0, 8, 8)), "", "title"),
        lambda: figures.cost_figure({"a": 10, "b": 1000}, {"a": 100, "b": 5}, "title"),
        lambda: figures.gradients_figure({"a": np.array([0.1, 1.0])}, "title"),
    ],
    ids=["arithmetic", "filters", "maps", "grad_cam", "grad_cam_of_none", "cost", "gradients"],
)
def test_notebook_shows_the_saved_figure(figure, tmp_path):
    saved = figures.save_figure(figure(), tmp_path / "deep" / "figure.png")
    assert saved._repr_png_() == saved.path.read_bytes()
    assert min(Image.open(saved.path).size) > 200


def test_heat_map_covers_the_area_of_its_maps():
    images, heats = np.zeros((1, 28, 28, 1), np.uint8), np.ones((1, 28, 28))
    figure = figures.grad_cam_figure(images, heats, ["a"], "title", covered=(5.5, 21.5))
    below = figure.axes[1]
    assert tuple(below.images[1].get_extent()) == (5.5, 21.5, 21.5, 5.5)
    assert below.axis() == (-0.5, 27.5, 27.5, -0.5)
