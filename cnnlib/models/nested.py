"""The layers of a built model, and of the models inside it. A user's function may use a whole model as one layer."""

from collections.abc import Iterator

import keras


def flat_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yield the layers in order. In place of a model inside the model, yield its layers.

    A model with its own `call` stays one layer, because nobody can see how it uses its layers.
    """
    for layer in model.layers:
        # Only models that are graphs of layers have operations.
        if isinstance(layer, keras.Sequential) or (isinstance(layer, keras.Model) and hasattr(layer, "operations")):
            yield from flat_layers(layer)
        else:
            yield layer


def layer_outputs(model: keras.Model) -> Iterator[tuple[keras.layers.Layer, keras.KerasTensor]]:
    """Yield every layer with its output in this model. A layer of a user's function may be in another model too."""
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            for output in node.output_tensors:
                yield node.operation, output
