"""Architectures of keras.applications, with new weights or with those trained on ImageNet."""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras

from cnnlib.models.architecture import IMAGENET, Application, Architecture, Preprocessing
from cnnlib.sealed.frozen.grouped_convolution import GroupedConv2D

# As `preprocess_input` of the architectures' modules in keras.applications does, by its modes.
CAFFE = Preprocessing((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255, 1 / 255, 1 / 255), is_bgr=True)
TORCH = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SYMMETRIC = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def application_logits(
    pixels: keras.KerasTensor,
    *,
    classes: int,
    application: Callable[..., keras.Model],
    dropout: float = 0.0,
    weights: str | None = None,
    **options: Any,
) -> keras.KerasTensor:
    """Build an application up to its average pooling, then a dense layer: (batch, classes) logits.

    `pixels` are (batch, height, width, channels). `options` are the application's own, such as `alpha` of MobileNet.
    `weights` is None for new weights, "imagenet", or a .h5 file.
    """
    features = application_features(pixels, application, weights, pooling="avg", **options)
    if dropout:
        features = keras.layers.Dropout(dropout, name="dropout")(features)
    return keras.layers.Dense(classes, name="logits")(features)


def keras_application(
    name: str,
    application: Callable[..., keras.Model],
    source: str,
    preprocessing: Preprocessing,
    *,
    build: Callable[..., keras.KerasTensor] = application_logits,
    default_shape: tuple[int, int, int] = IMAGENET,
    smallest_side: int = 32,
    **options: Any,
) -> Architecture:
    """Return the declaration of an architecture of keras.applications, which has weights from ImageNet.

    `build` gets the application and `options`, which users can override.
    """
    return Architecture(
        name,
        partial(build, application=application, **options),
        source,
        default_shape,
        smallest_side,
        Application(application, preprocessing),
    )


def application_features(
    pixels: keras.KerasTensor, application: Callable[..., keras.Model], weights: str | None, **arguments: Any
) -> keras.KerasTensor:
    """Build an application without its head, and return its features: maps, or a vector with `pooling`."""
    built = application(
        include_top=False, weights=weights, input_tensor=pixels, input_shape=tuple(pixels.shape[1:]), **arguments
    )
    return with_fast_groups(built, keep_weights=weights is not None).output


def with_fast_groups(built: keras.Model, *, keep_weights: bool) -> keras.Model:
    """Return the model with each grouped convolution as a `GroupedConv2D`, with its weights or with new ones.

    On CPUs, a training step of ConvNeXt-Tiny with 8 images of 64 x 64 takes 0.13 s. With Keras' own layer it takes
    0.62 s. A model without grouped convolutions is returned unchanged.
    """
    if not any(_is_grouped(layer) for layer in built.layers):
        return built
    model = keras.models.clone_model(built, input_tensors=built.input, clone_function=_with_fast_groups)
    if keep_weights:
        model.set_weights(built.get_weights())
    return model


def _with_fast_groups(layer: keras.layers.Layer) -> keras.layers.Layer:
    kind = GroupedConv2D if _is_grouped(layer) else type(layer)
    return kind.from_config(layer.get_config())


def _is_grouped(layer: keras.layers.Layer) -> bool:
    return type(layer) is keras.layers.Conv2D and layer.groups > 1
