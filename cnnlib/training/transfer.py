"""Transfer learning in two phases: the new head alone, then the last layers of the rest too, at a lower rate.

After Yosinski, Clune, Bengio and Lipson, "How transferable are features in deep neural networks?" (2014). Batch
normalisation keeps the averages that it came with, in both phases: those of a few small batches would be worse.
"""

from collections.abc import Mapping

import keras

from cnnlib.config import TransferSettings
from cnnlib.models.nested import flat_layers
from cnnlib.models.pretrained import head_of

Logs = Mapping[str, float] | None


class TransferPhases(keras.callbacks.Callback):
    """Has the layers trained that are due in an epoch; outside of its steps, all of `plain`'s are trainable that were.

    So a checkpoint has the optimizer's state of all of them, and the model that is saved knows nothing of phases.
    """

    def __init__(self, plain: keras.Model, settings: TransferSettings) -> None:
        super().__init__()
        self._plain = plain
        self._settings = settings
        self._trainable = [layer for layer in flat_layers(plain) if layer.trainable]
        self._trained: set[keras.layers.Layer] = set()

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Freeze what is not due. The training step is traced anew where that has changed."""
        trained = set(trained_layers(self._plain, self._settings, epoch))
        for layer in self._trainable:
            layer.trainable = layer in trained
        if trained != self._trained:
            self.model.make_train_function(force=True)
            self._trained = trained

    def on_test_begin(self, logs: Logs = None) -> None:
        """Thaw, as the training of the epoch is over."""
        self._thaw()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Thaw, where nothing was validated."""
        self._thaw()

    def _thaw(self) -> None:
        for layer in self._trainable:
            layer.trainable = True


def trained_layers(model: keras.Model, settings: TransferSettings, epoch: int) -> list[keras.layers.Layer]:
    """The layers with weights that are trained in an epoch (from 0)."""
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


def rate_share(settings: TransferSettings, epoch: int) -> float:
    """What is left of the learning rate in an epoch (from 0)."""
    return 1.0 if epoch < settings.frozen_epochs else settings.rate
