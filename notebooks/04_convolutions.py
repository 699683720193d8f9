# Databricks notebook source
# MAGIC %md
# MAGIC # Convolutions: their arithmetic, and their use in a trained model
# MAGIC
# MAGIC The first half shows the arithmetic, on numbers that fit on paper. The code asserts every example. The second
# MAGIC half shows the filters and feature maps of a trained LeNet, and the parts of an image that it looks at
# MAGIC (Grad-CAM). It needs the model that `02_train` registers. Source of the arithmetic: Dumoulin and Visin, "A guide
# MAGIC to convolution arithmetic for deep learning" (2016).

# COMMAND ----------

from pathlib import Path

import numpy as np

from cnnlib.explain.convolution import average_pool, cross_correlate, draw_cases, max_pool, output_size
from cnnlib.explain.figures import arithmetic_figure, filters_figure, grad_cam_figure, maps_figure, save_figure
from cnnlib.quiet import import_tensorflow_quietly
from pipelines.notebook import widget_values

import_tensorflow_quietly()

import keras

from cnnlib.explain.feature_maps import feature_maps, filters_of, map_layers
from cnnlib.explain.grad_cam import grad_cam, last_maps
from cnnlib.feed import make_dataset
from cnnlib.image_set import open_image_set
from pipelines.network import open_network

values = widget_values(
    globals().get("dbutils"),
    {
        "model": "models:/mnist-lenet@champion",
        "data_path": "sparkcnn_demo/mnist",
        "images": "10000",
        "random_cases": "200",
        "figures_path": "sparkcnn_demo/figures",
    },
)
figures = Path(values["figures_path"])

# COMMAND ----------

# MAGIC %md
# MAGIC ## A kernel on an image
# MAGIC
# MAGIC Lay the kernel on a part of the image, multiply each pair of numbers, and add the products. The sum is one value
# MAGIC of the output. Then move the kernel on. Here the image has 3 x 3 pixels and the kernel 2 x 2, so the kernel has
# MAGIC 2 x 2 positions. At the upper left, `0*0 + 1*1 + 3*2 + 4*3 = 19`.

# COMMAND ----------

small = np.arange(9).reshape(3, 3)
kernel = np.array([[0, 1], [2, 3]])
assert cross_correlate(small, kernel).tolist() == [[19, 25], [37, 43]]
save_figure(
    arithmetic_figure(small, kernel, cross_correlate(small, kernel), "Cross-correlation, stride 1, no padding"),
    figures / "cross_correlation.png",
)

# COMMAND ----------

# MAGIC %md
# MAGIC In CNNs, a "convolution" is a *cross-correlation*. The convolution of mathematics first turns the kernel by half
# MAGIC a turn. To a CNN this makes no difference, because it learns the kernel. With a given kernel it does: the same
# MAGIC numbers give another output.

# COMMAND ----------

turned = kernel[::-1, ::-1]
assert cross_correlate(small, turned).tolist() == [[5, 11], [23, 29]]

# COMMAND ----------

# MAGIC %md
# MAGIC ## Padding and strides
# MAGIC
# MAGIC *Padding* puts zeros around the image, so that the kernel can reach over its edge. A *stride* of 2 moves the
# MAGIC kernel by two pixels at a time. With a padding of 1, the image becomes 5 x 5. With a stride of 3 down and 2
# MAGIC across, the kernel has 2 x 2 positions on it.

# COMMAND ----------

assert cross_correlate(small, kernel, padding=1, stride=(3, 2)).tolist() == [[0, 8], [6, 8]]

# COMMAND ----------

# MAGIC %md
# MAGIC Here is a larger example, with padding 1 and stride 2. For the value at row 0, column 1, the upper row of the
# MAGIC kernel is over the padding: `1*31 + 1*12 + 0*167 - 1*54 + 0*67 + 1*254 = 243`. For the value at row 1, column 0,
# MAGIC it is the left column of the kernel: `0*45 - 1*54 + 1*0 + 0*25 + 0*10 + 1*196 = 142`.

# COMMAND ----------

image = np.array(
    [
        [12, 31, 12, 167, 255],
        [45, 54, 67, 254, 254],
        [0, 25, 238, 254, 254],
        [10, 196, 254, 254, 251],
        [127, 254, 254, 238, 98],
    ]
)
edges = np.array([[1, 0, -1], [1, 1, 0], [-1, 0, 1]])
output = cross_correlate(image, edges, padding=1, stride=2)
assert output[0, 1] == 243
assert output[1, 0] == 142
assert output.tolist() == [[66, 243, 168], [142, 121, 508], [-69, 450, 590]]
save_figure(
    arithmetic_figure(image, edges, output, "Cross-correlation, stride 2, padding 1"),
    figures / "cross_correlation_padded.png",
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Channels
# MAGIC
# MAGIC If an image has several channels, there is one kernel for each of them, and their outputs are added to one map.
# MAGIC Such a set of kernels is a filter, and many filters give many maps. So the weights of a layer are (height,
# MAGIC width, channels, filters). Here are two channels:
# MAGIC `(0*0 + 1*1 + 3*2 + 4*3) + (1*1 + 2*2 + 4*3 + 5*4) = 19 + 37 = 56`.

# COMMAND ----------

channels = np.stack([small, small + 1], axis=-1)
kernels = np.stack([kernel, kernel + 1], axis=-1)[..., None]
both = cross_correlate(channels, kernels)
assert both[0, 0, 0] == 56
assert both[..., 0].tolist() == [[56, 72], [104, 120]]

# COMMAND ----------

# MAGIC %md
# MAGIC ## How large is the output?
# MAGIC
# MAGIC Each side has `floor((size + 2 padding - dilation (kernel - 1) - 1) / stride) + 1` values. *Dilation* puts gaps
# MAGIC between the values of the kernel. Keras' padding "same" adds as many zeros as give `ceil(size / stride)` values.
# MAGIC
# MAGIC The next cells compare random cases with Keras: all shapes with `keras.layers.Conv2D`, and the values of the
# MAGIC first cases with `keras.ops.conv`.

# COMMAND ----------

assert output_size(5, 3, stride=2, padding=1) == 3
assert output_size(224, 11, stride=4, padding=2) == 55
cases = draw_cases(int(values["random_cases"]), seed=0)
by_keras = [
    keras.layers.Conv2D(
        1, case.kernel, strides=case.strides, padding=case.padding, dilation_rate=case.dilation
    ).compute_output_shape((1, *case.image, 1))
    for case in cases
]
assert [case.output_shape for case in cases] == [shape[1:3] for shape in by_keras]
print(f"{len(cases)} random cases have the same shape in Keras, e.g.", cases[0], "->", cases[0].output_shape)

# COMMAND ----------

random = np.random.default_rng(0)
for case in cases[:20]:
    pixels = random.normal(size=(*case.image, 3)).astype(np.float32)
    weights = random.normal(size=(*case.kernel, 3, 4)).astype(np.float32)
    ours = cross_correlate(pixels, weights, stride=case.strides, padding=case.padding, dilation=case.dilation)
    theirs = keras.ops.conv(
        pixels[None], weights, strides=case.strides, padding=case.padding, dilation_rate=case.dilation
    )
    np.testing.assert_allclose(ours, np.asarray(theirs)[0], rtol=1e-3, atol=1e-4)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Pooling
# MAGIC
# MAGIC Pooling takes the largest value or the mean of each window, separately for each channel. It has no weights. By
# MAGIC default, the windows lie side by side.

# COMMAND ----------

assert max_pool(small, 2, stride=1).tolist() == [[4, 5], [7, 8]]
assert average_pool(small, 2, stride=1).tolist() == [[2, 3], [5, 6]]
assert max_pool(image[:4, :4], 2).tolist() == [[54, 254], [196, 254]]
assert average_pool(image[:4, :4], 2).tolist() == [[35.5, 125], [57.75, 250]]

# COMMAND ----------

# MAGIC %md
# MAGIC ## A trained LeNet
# MAGIC
# MAGIC This is the champion of the registry. Its input is plain pixels from 0 to 255, because it standardises them
# MAGIC itself.

# COMMAND ----------

model, card = open_network(values["model"])
print({name: model.get_layer(name).output.shape[1:] for name in map_layers(model)})

# COMMAND ----------

with make_dataset(open_image_set(values["data_path"]), "test", worker_batch_size=int(values["images"])) as dataset:
    images, labels = next(dataset.unbatch().batch(int(values["images"])).as_numpy_iterator())
predicted = model.predict(images, verbose=0).argmax(axis=1)
print(f"{(predicted == labels).sum():,} of {len(labels):,} test images are right")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Filters
# MAGIC
# MAGIC These are the kernels of the first convolution after training. A filter with a red and a blue side responds to
# MAGIC an edge between light and dark in that direction.

# COMMAND ----------

save_figure(
    filters_figure(filters_of(model, "conv_1"), "Filters of LeNet's first convolution, 5 x 5"),
    figures / "filters.png",
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Feature maps
# MAGIC
# MAGIC A map is the output of a filter for one digit, after the ReLU. It is yellow where the image is like the filter,
# MAGIC and dark where it is not. The second convolution looks at all maps of the first one, after pooling. Its maps are
# MAGIC smaller, and each of their values sees a larger part of the digit.

# COMMAND ----------

maps = feature_maps(model, images[0], ["conv_1", "conv_2"])
save_figure(
    maps_figure(maps["conv_1"], f"Maps of LeNet's first convolution, for a {card.classes[labels[0]]}"),
    figures / "maps_1.png",
)

# COMMAND ----------

save_figure(
    maps_figure(maps["conv_2"], f"Maps of LeNet's second convolution, for a {card.classes[labels[0]]}"),
    figures / "maps_2.png",
)

# COMMAND ----------

# MAGIC %md
# MAGIC In the first convolution, Keras computes the cross-correlation that the first half asserts, then adds a bias and
# MAGIC applies ReLU.

# COMMAND ----------

standardised = feature_maps(model, images[0], ["standardise"])["standardise"]
by_definition = cross_correlate(standardised, filters_of(model, "conv_1")) + np.asarray(model.get_layer("conv_1").bias)
np.testing.assert_allclose(np.maximum(by_definition, 0), maps["conv_1"], rtol=1e-3, atol=1e-4)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Where does it look? Grad-CAM
# MAGIC
# MAGIC In Grad-CAM (Selvaraju et al. 2017), each of the last maps gets a weight: the mean gradient of the class's logit
# MAGIC with respect to the map. Where the weighted sum of the maps is positive, the image speaks for the class. The sum
# MAGIC shows which maps matter and where they are active. It does not show how the dense layers weigh each position.
# MAGIC
# MAGIC LeNet's convolutions have no padding. A value of `conv_2` at column j looks at pixels around column 2j + 6.5, so
# MAGIC its 8 x 8 maps cover the pixels between 5.5 and 21.5, and the figures show the heat maps there.
# MAGIC
# MAGIC The first figure has digits with a right prediction, the second one digits with a wrong prediction. Both explain
# MAGIC the predicted class.

# COMMAND ----------

right = np.flatnonzero(predicted == labels)[:8]
layer = last_maps(model)
heats = grad_cam(model, images[right], predicted[right])
captions = [f"{card.classes[label]}" for label in labels[right]]
save_figure(
    grad_cam_figure(
        images[right], heats, captions, f"Right predictions: evidence for the class, by {layer}", covered=(5.5, 21.5)
    ),
    figures / "grad_cam_right.png",
)

# COMMAND ----------

wrong = np.flatnonzero(predicted != labels)[:8]
heats = grad_cam(model, images[wrong], predicted[wrong])
captions = [f"{card.classes[labels[at]]}, predicted as {card.classes[predicted[at]]}" for at in wrong]
save_figure(
    grad_cam_figure(
        images[wrong],
        heats,
        captions,
        f"Wrong predictions: evidence for the predicted class, by {layer}",
        covered=(5.5, 21.5),
    ),
    figures / "grad_cam_wrong.png",
)

# COMMAND ----------

print(*sorted(path.name for path in figures.glob("*.png")), sep="\n")
