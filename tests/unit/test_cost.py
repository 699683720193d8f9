"""Costs of models, compared with published tables, TensorFlow's profiler, and Keras' optimizers."""

import math
from collections.abc import Iterator
from typing import get_args

import numpy as np
import pytest

from cnnlib.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from cnnlib.config import CostSettings, OptimizerSettings  # noqa: E402
from cnnlib.cost.layers import LayerCost, layer_costs, weightless  # noqa: E402
from cnnlib.cost.training import Device, optimizer_bytes, step_seconds, training_bytes  # noqa: E402
from cnnlib.errors import ConfigError, ImageSetError  # noqa: E402
from cnnlib.models import ARCHITECTURES, build_model  # noqa: E402
from cnnlib.models.googlenet import STAGES, inception  # noqa: E402
from cnnlib.training.optimizers import make_optimizer  # noqa: E402
from jobs import cost as job  # noqa: E402
from jobs import models as models_job  # noqa: E402
from pipelines.cost import cost_of  # noqa: E402
from tests.unit.image_sets import write_image_set  # noqa: E402

MILLION = 1e6


def costs_of(name: str, shape: tuple[int, int, int], classes: int, **options) -> dict[str, LayerCost]:
    with weightless():
        model = build_model(name, image_shape=shape, classes=classes, **options)
    return {cost.name: cost for cost in layer_costs(model)}


# --- published tables


def test_alexnet_costs_as_much_as_in_the_textbook():
    """Source: the table "Complexity" in Smola and Li, "Introduction to Deep Learning" (Berkeley STAT 157, 2019).

    Its AlexNet has the filters of 2012 in one tower and no padding. The table drops digits: dense layer 2 has 16.8.
    """
    costs = costs_of("alexnet", (224, 224, 3), 1000, filters=(96, 256, 384, 384, 256), padding=0)
    assert costs["conv_1"].multiply_adds / MILLION == pytest.approx(101, abs=1)
    assert costs["conv_2"].multiply_adds / MILLION == pytest.approx(415, abs=0.5)
    assert sum(costs[f"conv_{n}"].multiply_adds for n in (3, 4, 5)) / MILLION == pytest.approx(445, abs=1)
    assert costs["hidden_1"].multiply_adds // MILLION == 26
    assert costs["hidden_2"].multiply_adds // MILLION == 16
    assert costs["conv_1"].parameters // 1000 == 34  # The table has 35K, 614K for conv_2, 3M for conv_3 to 5.
    assert costs["conv_2"].parameters // 1000 == 614


def test_textbook_gives_lenet_ten_times_its_cost():
    """The same table gives LeNet 1.2M, 2.4M, 0.48M and 0.1M, each ten times the cost of its layers.

    28 x 28 x 6 values of 5 x 5 products are 117,600, not 1.2M. The parameters in the table (150 and 2.4K for the
    convolutions, without biases) are those of this model, so the factor is an error of the table.
    """
    costs = costs_of("lenet", (28, 28, 1), 10, filters=(6, 16), units=(120, 84), padding=2)
    computed = [costs[name].multiply_adds for name in ("conv_1", "conv_2", "hidden_1", "hidden_2")]
    assert computed == [28 * 28 * 6 * 25, 10 * 10 * 16 * 150, 400 * 120, 120 * 84]
    assert [10 * count / MILLION for count in computed] == pytest.approx([1.2, 2.4, 0.48, 0.1], rel=0.03)
    assert [costs["conv_1"].parameters - 6, costs["conv_2"].parameters - 16] == [150, 2400]


@pytest.mark.parametrize(
    ("block", "parameters", "multiply_adds"),
    # The same course, "Inception Blocks": 256 filters on 192 channels of 28 x 28 values, without biases.
    [("inception", 0.16, 128), (3, 0.44, 346), (5, 1.22, 963)],
)
def test_inception_block_against_single_convolutions(block, parameters, multiply_adds):
    features = keras.Input((28, 28, 192))
    with weightless():
        if block == "inception":
            output = inception(features, STAGES[0]["3a"], name="block")
        else:
            output = keras.layers.Conv2D(256, block, padding="same")(features)
        costs = layer_costs(keras.Model(features, output))
    assert output.shape == (None, 28, 28, 256)
    biases = 256 + (96 + 16 if block == "inception" else 0)
    # The table drops digits.
    assert math.floor((sum(cost.parameters for cost in costs) - biases) / 1e4) / 100 == parameters
    assert sum(cost.multiply_adds for cost in costs) // MILLION == multiply_adds


@pytest.mark.parametrize(
    ("name", "published", "within"),
    [
        # Documentation of torchvision, "GFLOPS", which counts a multiply-add once.
        ("alexnet", 710, 0.01),
        ("vgg11", 7610, 0.01),
        ("resnet18", 1810, 0.01),
        ("resnext50_32x4d", 4230, 0.01),
        ("convnext_tiny", 4460, 0.01),
        # Table 5 of Sandler et al., table 2 of Zhang et al., table 8 of Ma et al.
        ("mobilenet_v2", 300, 0.01),
        ("shufflenet", 137, 0.01),
        ("shufflenet_v2", 146, 0.01),
        # Table 1 of Szegedy et al. says "1.5B". Its rows add up to 1,583M.
        ("googlenet", 1583, 0.01),
        # Table 1 of He et al. (2015) has 3.8G, with the stride in the first convolution of a block.
        ("resnet50", 3800, 0.02),
    ],
)
def test_architecture_has_the_published_multiply_adds(name, published, within):
    total = sum(cost.multiply_adds for cost in costs_of(name, (224, 224, 3), 1000).values())
    assert total / MILLION == pytest.approx(published, rel=within)


# --- TensorFlow's profiler


def profiled_operations(model: keras.Model) -> int:
    """Return TensorFlow's count of the floating point operations of convolutions and matrix products for one image."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2_as_graph

    signature = tf.TensorSpec((1, *model.input_shape[1:]), tf.uint8)
    concrete = tf.function(lambda images: model(images, training=False)).get_concrete_function(signature)
    _, graph_def = convert_variables_to_constants_v2_as_graph(concrete)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
        options = tf.compat.v1.profiler.ProfileOptionBuilder(
            tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
        ).with_empty_output()
        profile = tf.compat.v1.profiler.profile(graph, cmd="op", options=options.build())
    return sum(node.float_ops for node in _all(profile) if node.name in ("Conv2D", "DepthwiseConv2dNative", "MatMul"))


def _all(profile) -> Iterator:
    """Yield the kinds of operations. The profiler nests each kind in the one before."""
    yield profile
    for child in profile.children:
        yield from _all(child)


@pytest.mark.full
@pytest.mark.parametrize("name", ["lenet", "alexnet", "googlenet", "resnet18", "mobilenet_v2", "shufflenet_v2"])
def test_multiply_adds_are_half_of_tensorflows_operations(name):
    side = max(ARCHITECTURES[name].smallest_side, 64)
    model = build_model(name, image_shape=(side, side, 3), classes=10)
    assert 2 * sum(cost.multiply_adds for cost in layer_costs(model)) == profiled_operations(model)


def test_separable_convolution_costs_its_two_parts():
    images = keras.Input((8, 8, 6))
    model = keras.Model(images, keras.layers.SeparableConv2D(10, 3, padding="same", depth_multiplier=2)(images))
    (cost,) = layer_costs(model)
    assert cost.multiply_adds == 64 * 12 * 9 + 64 * 12 * 10


def test_layers_of_a_model_inside_a_model_are_counted():
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    images = keras.Input((4,))
    costs = layer_costs(keras.Model(images, keras.layers.Dense(5)(inner(images))))
    assert [cost.multiply_adds for cost in costs] == [12, 6, 10]


@keras.saving.register_keras_serializable("tests")
class Block(keras.Model):
    """A model with its own `call`, so its layers belong to no graph."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.inner = keras.layers.Dense(3)

    def call(self, values):
        return self.inner(values)


def test_model_with_its_own_call_is_one_layer():
    images = keras.Input((4,))
    costs = layer_costs(keras.Model(images, keras.layers.Dense(5)(Block(name="block")(images))))
    assert [(cost.name, cost.parameters, cost.multiply_adds) for cost in costs][0] == ("block", 15, 0)
    assert costs[1].multiply_adds == 15


def test_weightless_model_costs_the_same():
    assert layer_costs(build_model("resnet18", image_shape=(32, 32, 3), classes=10)) == list(
        costs_of("resnet18", (32, 32, 3), 10).values()
    )


# --- training


@pytest.mark.parametrize("name", get_args(OptimizerSettings.model_fields["name"].annotation))
@pytest.mark.parametrize("average", [0.0, 0.99])
def test_optimizer_keeps_what_keras_keeps(name, average):
    settings = OptimizerSettings(name=name, average=average)
    weights = [keras.Variable(np.zeros(shape, np.float32)) for shape in ((3, 3, 20, 50), (800, 50), (50,))]
    optimizer = make_optimizer(settings, 1e-3)
    optimizer.build(weights)
    kept = 4 * sum(math.prod(variable.shape) for variable in optimizer.variables)
    size = sum(math.prod(weight.shape) for weight in weights)
    # Optimizers also keep some counters, and Adafactor keeps sums over rows and columns.
    assert kept == pytest.approx(optimizer_bytes(size, settings), rel=0.05, abs=100)


def test_memory_grows_by_a_batchs_outputs():
    costs = [
        LayerCost("a", "Conv2D", (4, 4, 2), 20, trainable=20, multiply_adds=0, activation_bytes=128, kept_bytes=128),
        LayerCost("b", "BatchNormalization", (4, 4, 2), 8, 4, 0, activation_bytes=100, kept_bytes=0),
        LayerCost("c", "ReLU", (4, 4, 2), 0, 0, 0, activation_bytes=90, kept_bytes=90),
        LayerCost("d", "Dense", (2,), 0, 0, 0, activation_bytes=8, kept_bytes=8),
    ]
    # Weights and gradients, then a batch of images. At layer c: two kept outputs, and the gradients of c and b.
    assert training_bytes(costs, 16, 1, kept_by_optimizer=1000) == 4 * (28 + 24) + 1000 + (16 + 218 + 190)
    assert training_bytes(costs, 16, 11, 0) - training_bytes(costs, 16, 1, 0) == 10 * (16 + 218 + 190)


def test_only_outputs_for_the_backward_pass_are_kept():
    layers = keras.layers
    images = keras.Input((8, 8, 3))
    first = layers.ReLU(name="relu")(layers.BatchNormalization(name="bn")(layers.Conv2D(4, 3, name="conv")(images)))
    wide = layers.Conv2D(4, 1, activation="relu", name="conv_relu")(layers.ZeroPadding2D(0, name="padded")(first))
    smooth = layers.Activation("gelu", name="gelu")(layers.Conv2D(4, 1, name="conv_gelu")(first))
    summed = layers.Add(name="sum")([layers.BatchNormalization(name="bn_sum")(wide), smooth])
    pooled = layers.GlobalAveragePooling2D(name="mean")(layers.MaxPooling2D(name="largest")(summed))
    model = keras.Model(images, layers.Dense(2, name="logits")(layers.Flatten(name="flat")(pooled)))
    costs = {cost.name: cost for cost in layer_costs(model)}
    # Not kept: a normalisation before a ReLU or a sum, the terms of a sum, the values of a mean, and an output that
    # shares memory with another one. The mean is kept, because a dense layer follows after a reshape.
    assert {name for name, cost in costs.items() if cost.kept_bytes} == {
        *("conv", "relu", "padded", "conv_relu", "conv_gelu", "sum", "largest", "mean", "logits")
    }
    assert costs["conv"].kept_bytes == costs["conv"].activation_bytes == 6 * 6 * 4 * 4


def test_step_takes_the_longer_of_arithmetic_and_traffic():
    arithmetic = LayerCost("a", "Conv2D", (1,), 0, 0, multiply_adds=10**6, activation_bytes=4, kept_bytes=4)
    traffic = LayerCost("b", "ReLU", (1,), 0, 0, multiply_adds=0, activation_bytes=10**6, kept_bytes=0)
    device = Device(flops=1e9, bytes_per_second=1e8)
    # Forward, and twice as long backward. A multiply-add is 2 operations. An output is written and read.
    assert step_seconds([arithmetic], 5, device) == pytest.approx(3 * 5 * 2e6 / 1e9)
    assert step_seconds([traffic], 5, device) == pytest.approx(3 * 5 * 2e6 / 1e8)
    assert step_seconds([arithmetic, traffic], 5, device) == pytest.approx(3 * 5 * (2e-3 + 2e-2))


# --- the jobs


def test_cost_of_an_image_set(tmp_path):
    images = np.zeros((60, 20, 24, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(60)
    splits = ["train"] * 40 + ["val"] * 20
    image_set = write_image_set(tmp_path / "set", images, [0, 1, 2] * 20, splits, classes=("a", "b", "c"))
    cost = cost_of(CostSettings(data={"path": image_set.folder.uri}, batch_sizes="4,8"))
    assert (cost.image_shape, cost.classes, cost.images) == ((20, 24, 3), 3, 40)
    assert [training.batch_size for training in cost.trainings] == [4, 8]
    assert cost.layers[-1].output_shape == (3,)


def test_default_input_is_that_of_the_architecture():
    assert cost_of(CostSettings(model={"name": "nin"})).image_shape == (32, 32, 3)
    assert cost_of(CostSettings(model={"name": "lenet"}, image={"height": 40})).image_shape == (40, 28, 1)


def test_cost_prints_a_row_per_layer_and_the_totals(capsys):
    assert job.main(["--model.name", "lenet", "--batch_sizes", "64"]) == 0
    printed = capsys.readouterr().out
    assert "│ conv_2  " in printed
    assert "431,080, of which 431,080 are trained" in printed
    assert "2.293 M per image" in printed


@pytest.mark.full
def test_models_prints_a_row_per_architecture(capsys):
    assert models_job.main([]) == 0
    rows = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert [row[0].strip() for row in rows] == list(ARCHITECTURES)
    by_name = {row[0].strip(): [cell.strip() for cell in row] for row in rows}
    assert by_name["vgg16"][1:6] == ["224 x 224 x 3", "1,000", "138,357,544", "15,470 M", "553.4"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--model.name", "alexnet", "--image.width", "32"], ConfigError, "at least 63 x 63 pixels, received 224 x 32"),
        (["--model.name", "resnet51"], ConfigError, "did you mean resnet50?"),
        (["--batch_sizes", "32;64"], ConfigError, "batch_sizes"),
        (["--data.path", "nowhere"], ImageSetError, "nowhere"),
    ],
)
def test_mistake_ends_in_one_line(arguments, error, message, capsys):
    assert job.main(arguments) == error.exit_status
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("sparkcnn cost: ")
    assert message in line
