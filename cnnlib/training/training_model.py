"""A Keras model in training: equal on all ranks, and trained on augmented images.

Each rank trains on its own rows. This is synchronous data parallelism: in every step, the gradients are averaged over
all ranks before the optimizer sees them (Sergeev and Del Balso, "Horovod: fast and easy distributed deep learning in
TensorFlow", 2018). Optimizers that start equal and see equal gradients stay equal, bit for bit.

All ranks' means have the same weight in the average, because the ranks' batches differ by at most one row.

BatchNormalization normalises each rank's batch by that batch alone, as Horovod does. Its moving averages, which
validation and the saved model use, are averaged over all ranks at the end of each epoch.
"""

from typing import Any

import keras
import tensorflow as tf

from cnnlib.config import TrainSettings
from cnnlib.training.augmentation import Augmentation
from cnnlib.training.ranks import Ranks


class TrainingModel(keras.Model):
    """A model with the layers of `plain`, a functional model, that trains them together with other ranks.

    `augmentation`, if any, changes the images and mixes their labels before each step. `plain` itself stays unchanged
    except for its weights; save and return `plain`.
    """

    def __init__(self, plain: keras.Model, ranks: Ranks, augmentation: Augmentation | None = None) -> None:
        super().__init__(inputs=plain.inputs, outputs=plain.outputs, name=plain.name)
        self._ranks = ranks
        self._augmentation = augmentation

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Run Keras' training step, with the gradients averaged over all ranks before they are applied."""
        images, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if self._augmentation is not None:
            images, labels = self._augmentation(images, labels)
        with tf.GradientTape() as tape:
            logits = self(images, training=True)
            loss = self.compute_loss(x=images, y=labels, y_pred=logits, sample_weight=sample_weight, training=True)
            scaled = self.optimizer.scale_loss(loss)
        gradients = zip(tape.gradient(scaled, self.trainable_weights), self.trainable_weights, strict=True)
        # A weight without influence on the loss has no gradient, on any rank. The gradient of an embedding is sparse.
        pairs = [(tf.convert_to_tensor(gradient), weight) for gradient, weight in gradients if gradient is not None]
        if pairs:
            given, weights = zip(*pairs, strict=True)
            self.optimizer.apply_gradients(zip(self._ranks.mean(given), weights, strict=True))
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss, sample_weight=tf.shape(images)[0])
        return self.compute_metrics(images, labels, logits, sample_weight=sample_weight)

    def get_metrics_result(self) -> dict[str, Any]:
        """Return the metrics: of all ranks' rows at the end of an epoch or evaluation, of this rank's rows before."""
        if not tf.executing_eagerly():
            return super().get_metrics_result()
        own = [variable.numpy() for variable in self.metrics_variables]
        # Keras' means keep a total and a count. Summed over the ranks, they are those of all rows.
        total = self._ranks.sum([tf.convert_to_tensor(value) for value in own])
        for variable, value in zip(self.metrics_variables, total, strict=True):
            variable.assign(value)
        result = {name: float(value) for name, value in super().get_metrics_result().items()}
        for variable, value in zip(self.metrics_variables, own, strict=True):
            variable.assign(value)
        return result

    def average_statistics(self) -> None:
        """Average the weights that are learned without gradients (BatchNormalization's averages) over all ranks."""
        statistics = self.non_trainable_weights
        total = self._ranks.sum([tf.convert_to_tensor(variable.value) for variable in statistics])
        for variable, value in zip(statistics, total, strict=True):
            variable.assign(value / self._ranks.count)


def as_training_model(
    plain: keras.Model, image_shape: tuple[int, int, int], settings: TrainSettings, ranks: Ranks
) -> keras.Model:
    """Return the model to call `fit` on, for a compiled `plain`: `plain` itself, or a `TrainingModel` of its layers.

    One rank without augmentation needs only Keras' own training step.
    """
    augmentation = Augmentation(settings.augment, image_shape) if settings.augment.is_on else None
    if ranks.count == 1 and augmentation is None:
        return plain
    model = TrainingModel(plain, ranks, augmentation)
    # Use the same optimizer object, so that a checkpoint of `plain` has its state. Keras would turn XLA on for GPUs,
    # but XLA compiles neither the sums over the ranks nor the geometric changes of images.
    model.compile(
        optimizer=plain.optimizer, loss=plain.loss, metrics=["accuracy"], jit_compile=False, auto_scale_loss=False
    )
    return model
