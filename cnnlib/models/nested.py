"""The layers of a model, and of the models within it: a network that somebody took whole is one layer to Keras."""

from collections.abc import Iterator

import keras


def flat_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers in order, and in place of a model within the model, its layers.

    A model whose call is a user's own code stays one layer: what it does with those that it has is not known.
    """
    for layer in model.layers:
        # Only models that are graphs of layers have operations.
        if isinstance(layer, keras.Sequential) or (isinstance(layer, keras.Model) and hasattr(layer, "operations")):
            yield from flat_layers(layer)
        else:
            yield layer


def layer_outputs(model: keras.Model) -> Iterator[tuple[keras.layers.Layer, keras.KerasTensor]]:
    """Every layer with what it gives in this model: a layer of a user's may be in another one too."""
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            for output in node.output_tensors:
                yield node.operation, output
