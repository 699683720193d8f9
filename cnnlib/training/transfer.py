"""Transfer learning in two phases: first the new head alone, then also the last of the other layers, at a lower rate.

After Yosinski, Clune, Bengio and Lipson, "How transferable are features in deep neural networks?" (2014). Batch
normalisation keeps its pretrained averages in both phases, because the averages of a few small batches are worse.
"""

from collections.abc import Mapping

import keras

from cnnlib.config import TransferSettings
from cnnlib.models.nested import flat_layers
from cnnlib.models.pretrained import head_of

Logs = Mapping[str, float] | None


class TransferPhases(keras.callbacks.Callback):
    """Train only the layers of the current phase.

    Outside an epoch's training steps, every layer of `plain` that was trainable before is trainable. So a checkpoint
    has the optimizer's state of all layers, and the saved model does not depend on phases.
    """

    def __init__(self, plain: keras.Model, settings: TransferSettings) -> None:
        super().__init__()
        self._plain = plain
        self._settings = settings
        self._trainable = [layer for layer in flat_layers(plain) if layer.trainable]
        self._trained: set[keras.layers.Layer] = set()

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Freeze the layers that this epoch does not train. If they changed, trace the training step again."""
        trained = set(trained_layers(self._plain, self._settings, epoch))
        for layer in self._trainable:
            layer.trainable = layer in trained
        if trained != self._trained:
            self.model.make_train_function(force=True)
            self._trained = trained

    def on_test_begin(self, logs: Logs = None) -> None:
        """Unfreeze, because the training of the epoch is over."""
        self._unfreeze()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Unfreeze, for an epoch without validation."""
        self._unfreeze()

    def _unfreeze(self) -> None:
        for layer in self._trainable:
            layer.trainable = True


def trained_layers(model: keras.Model, settings: TransferSettings, epoch: int) -> list[keras.layers.Layer]:
    """Return the layers with weights that an epoch (from 0) trains."""
    head = head_of(model)
    if epoch < settings.frozen_epochs:
        return [head]
    rest = [
        layer
        for layer in flat_layers(model)
        if layer.weights and layer is not head and not isinstance(layer, keras.layers.BatchNormalization)
    ]
    last = rest if settings.layers is None else rest[len(rest) - min(settings.layers, len(rest)) :]
    return [*last, head]
