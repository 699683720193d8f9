# Databricks notebook source
# MAGIC %md
# MAGIC # Architectures: their cost, and the ideas in their blocks
# MAGIC
# MAGIC This notebook shows the cost of every architecture of sparkcnn, and the ideas that made later ones cheaper or
# MAGIC deeper: blocks of several kernels, residual and dense connections, and depthwise separable convolutions. It
# MAGIC trains nothing and needs no images. A *multiply-add* is a multiplication and its addition, counted as one.

# COMMAND ----------

from pathlib import Path

import numpy as np
import pandas as pd

from cnnlib.config import CostSettings, ModelListSettings
from cnnlib.explain.figures import cost_figure, gradients_figure, save_figure
from cnnlib.quiet import import_tensorflow_quietly
from pipelines.notebook import widget_values

import_tensorflow_quietly()

import keras

from cnnlib.cost.layers import layer_costs, weightless
from cnnlib.explain.feature_maps import feature_maps
from cnnlib.explain.gradient_flow import relative_gradients
from cnnlib.models import build_model
from cnnlib.models.googlenet import STAGES, inception
from pipelines.cost import architecture_costs, cost_of

values = widget_values(globals().get("dbutils"), {"depth": "40", "figures_path": "sparkcnn_demo/figures"})
figures = Path(values["figures_path"])

# COMMAND ----------

# MAGIC %md
# MAGIC ## All architectures, by year
# MAGIC
# MAGIC Each architecture has the input of its paper. This is 224 x 224 pixels and 1,000 classes, except for the
# MAGIC architectures for digits, for CIFAR, and for 299 x 299 pixels.

# COMMAND ----------

costs = list(architecture_costs(ModelListSettings()))
table = pd.DataFrame(
    {
        "architecture": [cost.name for cost in costs],
        "year": [int(cost.source[-4:]) for cost in costs],
        "after": [cost.source for cost in costs],
        "input": [" x ".join(map(str, cost.image_shape)) for cost in costs],
        "parameters, M": [cost.parameters / 1e6 for cost in costs],
        "multiply-adds, M": [cost.multiply_adds / 1e6 for cost in costs],
        "size, MB": [cost.size_bytes / 1e6 for cost in costs],
    }
).sort_values(["year", "parameters, M"], ignore_index=True)
print(table.to_string(float_format="{:,.2f}".format))

# COMMAND ----------

# MAGIC %md
# MAGIC Parameters take memory, and multiply-adds take time. One number does not tell the other: most parameters of VGG
# MAGIC are in its first dense layer, which is used once per image, while a convolution uses its parameters at every
# MAGIC pixel.

# COMMAND ----------

save_figure(
    cost_figure(
        {cost.name: cost.parameters for cost in costs},
        {cost.name: cost.multiply_adds for cost in costs},
        "Costs of the architectures",
    ),
    figures / "costs.png",
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## AlexNet and LeNet, layer by layer
# MAGIC
# MAGIC The next cell builds LeNet-5 (1998), and AlexNet with the filters of 2012 in one tower and no padding. The table
# MAGIC "Complexity" in Smola and Li, "Introduction to Deep Learning" (Berkeley STAT 157, 2019) gives their costs. For
# MAGIC AlexNet it has 101, 415 and 445 million multiply-adds in the convolutions, and 26 and 16 million in the hidden
# MAGIC layers (it drops digits). For LeNet it has 1.2, 2.4, 0.48 and 0.1 million, ten times the cost of LeNet's layers.
# MAGIC LeNet's first convolution has 28 x 28 x 6 values of 5 x 5 products each, which is 117,600.

# COMMAND ----------

lenet = cost_of(
    CostSettings(
        model={"name": "lenet", "options": {"filters": (6, 16), "units": (120, 84), "padding": 2}},
    )
)
alexnet = cost_of(
    CostSettings(model={"name": "alexnet", "options": {"filters": (96, 256, 384, 384, 256), "padding": 0}})
)
by_layer = {
    cost.name: pd.DataFrame(
        {
            f"{cost.name}: output": {layer.name: " x ".join(map(str, layer.output_shape)) for layer in cost.layers},
            "parameters": {layer.name: layer.parameters for layer in cost.layers},
            "multiply-adds, M": {layer.name: layer.multiply_adds / 1e6 for layer in cost.layers},
        }
    ).query("parameters > 0")
    for cost in (lenet, alexnet)
}
print(by_layer["lenet"].to_string(float_format="{:,.3f}".format))
print(by_layer["alexnet"].to_string(float_format="{:,.1f}".format))

# COMMAND ----------

millions = by_layer["alexnet"]["multiply-adds, M"]
assert abs(millions["conv_1"] - 101) < 1
assert abs(millions["conv_2"] - 415) < 1
assert abs(millions[["conv_3", "conv_4", "conv_5"]].sum() - 445) < 1
assert [int(millions["hidden_1"]), int(millions["hidden_2"])] == [26, 16]
lenets = (by_layer["lenet"]["multiply-adds, M"] * 1e6).round().astype(int)
assert lenets[["conv_1", "conv_2", "hidden_1", "hidden_2"]].tolist() == [117_600, 240_000, 48_000, 10_080]

# COMMAND ----------

# MAGIC %md
# MAGIC ## Inception: several kernels, cheaper than one
# MAGIC
# MAGIC GoogLeNet's first block looks at 192 channels of 28 x 28 values with kernels of 1, 3 and 5 pixels, and returns
# MAGIC 256 channels. Before its larger kernels come 1 x 1 convolutions, which leave them few channels. So the block
# MAGIC costs less than a single 3 x 3 convolution with as many filters.

# COMMAND ----------

features = keras.Input((28, 28, 192))
with weightless():
    blocks = {
        "inception 3a": inception(features, STAGES[0]["3a"], name="block"),
        "3 x 3": keras.layers.Conv2D(256, 3, padding="same")(features),
        "5 x 5": keras.layers.Conv2D(256, 5, padding="same")(features),
    }
    in_blocks = {name: layer_costs(keras.Model(features, output)) for name, output in blocks.items()}
block_table = pd.DataFrame(
    {
        "parameters": {name: sum(cost.parameters for cost in costs) for name, costs in in_blocks.items()},
        "multiply-adds, M": {
            name: sum(cost.multiply_adds for cost in costs) / 1e6 for name, costs in in_blocks.items()
        },
    }
)
assert {output.shape for output in blocks.values()} == {(None, 28, 28, 256)}
assert block_table["multiply-adds, M"].astype(int).tolist() == [128, 346, 963]
print(block_table.to_string(float_format="{:,.1f}".format))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Residual connections
# MAGIC
# MAGIC A residual block computes `y = F(x) + x`: its convolutions F learn a correction to their input (He et al. 2015).
# MAGIC In ResNet-18, F is two convolutions with batch normalisation, and a ReLU comes after the sum.

# COMMAND ----------

model = build_model("resnet18", image_shape=(32, 32, 3), classes=10)
image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
names = ["stem_relu", "stage_1_block_1_2_bn", "stage_1_block_1_add", "stage_1_block_1_relu"]
x, f_of_x, total, y = feature_maps(model, image, names).values()
np.testing.assert_allclose(total, f_of_x + x, rtol=1e-5, atol=1e-5)
np.testing.assert_array_equal(y, np.maximum(total, 0))
assert np.abs(y - x).max() > 0.1

# COMMAND ----------

# MAGIC %md
# MAGIC If the last scale of F is 0, F(x) is 0 and the block is the identity. So a deeper model can always compute the
# MAGIC same as a shallower one. A plain stack of layers would have to learn the identity.

# COMMAND ----------

scale = model.get_layer("stage_1_block_1_2_bn").gamma
scale.assign(np.zeros(scale.shape, np.float32))
x, f_of_x, _, y = feature_maps(model, image, names).values()
assert not f_of_x.any()
np.testing.assert_array_equal(y, x)

# COMMAND ----------

# MAGIC %md
# MAGIC How much of the loss's gradient reaches each layer of a deep stack of 3 x 3 convolutions? The stacks have Keras'
# MAGIC default initial weights and no training. In a plain stack, the gradient shrinks by the same factor at each layer
# MAGIC and is almost 0 at the first one. With only batch normalisation, or with only shortcuts, it grows instead. With
# MAGIC both, as in ResNet, it stays within about one order of magnitude over forty layers.
# MAGIC
# MAGIC This is a measurement of these stacks. The paper gives another reason for residual connections: He et al.
# MAGIC (section 4.1) had batch normalisation in their plain models too and found healthy gradients there. Their deeper
# MAGIC plain models still trained worse.

# COMMAND ----------

depth = int(values["depth"])
stacks = {
    "plain": relative_gradients(depth, residual=False, normalised=False),
    "plain, batch normalisation": relative_gradients(depth, residual=False, normalised=True),
    "residual": relative_gradients(depth, residual=True, normalised=False),
    "residual, batch normalisation": relative_gradients(depth, residual=True, normalised=True),
}
print({name: f"{gradients[0]:.1e}" for name, gradients in stacks.items()})
assert stacks["plain"][0] < 0.1
assert abs(np.log(stacks["residual, batch normalisation"][0])) < abs(np.log(stacks["plain"][0]))
save_figure(
    gradients_figure(stacks, f"Gradient at the maps of each layer, stacks of {depth} convolutions"),
    figures / "gradients.png",
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Dense connections
# MAGIC
# MAGIC In a dense block, every layer gets the maps of all layers before it (Huang et al. 2017). Each layer adds 32
# MAGIC maps, the growth rate. Between the four blocks, a transition halves the number of maps. In DenseNet-121, the
# MAGIC blocks have 6, 12, 24 and 16 layers.

# COMMAND ----------

densenet = {layer.name: layer.output_shape for layer in cost_of(CostSettings(model={"name": "densenet121"})).layers}
growth = 32
starts = {2: (64, 6), 3: (128, 12), 4: (256, 24), 5: (512, 16)}
grown = {
    block: [densenet[f"conv{block}_block{layer}_concat"][-1] for layer in range(1, layers + 1)]
    for block, (_, layers) in starts.items()
}
assert grown == {
    block: [first + growth * layer for layer in range(1, layers + 1)] for block, (first, layers) in starts.items()
}
assert [densenet[f"pool{block}_pool"][-1] for block in (2, 3, 4)] == [grown[block][-1] // 2 for block in (2, 3, 4)]
print(grown)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Depthwise separable convolutions
# MAGIC
# MAGIC MobileNet (Howard et al. 2017, section 3.1) filters each channel separately with a k x k kernel. Then a 1 x 1
# MAGIC convolution mixes the channels into N maps. This costs 1/N + 1/k^2 of an ordinary convolution.

# COMMAND ----------

features = keras.Input((56, 56, 64))
with weightless():
    (ordinary,), (separable,) = (
        layer_costs(keras.Model(features, layer(128, 3, padding="same")(features)))
        for layer in (keras.layers.Conv2D, keras.layers.SeparableConv2D)
    )
ratio = separable.multiply_adds / ordinary.multiply_adds
np.testing.assert_allclose(ratio, 1 / 128 + 1 / 3**2, rtol=1e-12)
print(f"{separable.multiply_adds / 1e6:,.1f} M of {ordinary.multiply_adds / 1e6:,.1f} M: a fraction of {ratio:.4f}")
