"""The layers of a model, and of the models within it: a network that somebody took whole is one layer to Keras."""

from collections.abc import Iterator

import keras


def flat_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers in order, and in place of a model within the model, its layers."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from flat_layers(layer)
        else:
            yield layer
