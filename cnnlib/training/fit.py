"""An image set and settings -> a trained model and its history."""

from collections.abc import Sequence

import keras

from cnnlib.config import OptimizerSettings, TrainSettings
from cnnlib.errors import ConfigError
from cnnlib.feed import make_dataset
from cnnlib.imageset import ImageSet
from cnnlib.models import build_model
from cnnlib.splits import TRAIN, VAL

MONITOR = "val_accuracy"

# One value an epoch, by Keras' name of the metric.
History = dict[str, list[float]]


def fit_model(
    image_set: ImageSet, settings: TrainSettings, callbacks: Sequence[keras.callbacks.Callback]
) -> tuple[keras.Model, History]:
    """Train from scratch and give the model as the last epoch left it, with `loss, accuracy, val_loss, val_accuracy`.

    Stops after `train.patience` epochs without a better val accuracy. Raises ImageSetError where the set has no
    train or no val images, ConfigError where the model does not fit the images.
    """
    train = settings.train
    image_set.split(VAL)
    if len(image_set.classes) < 2:
        raise ConfigError(f"{image_set.folder.uri} has one class, {image_set.classes[0]}; training needs two or more")
    taken = {"name", "image_shape", "classes", "mean", "std"} & settings.model.options.keys()
    if taken:
        raise ConfigError(f"model.options has {', '.join(sorted(taken))}, which follows from the image set; remove it")
    keras.utils.set_random_seed(train.seed)
    model = compile_model(
        build_model(
            settings.model.name,
            image_shape=image_set.image.shape,
            classes=len(image_set.classes),
            mean=image_set.mean,
            std=image_set.std,
            **settings.model.options,
        ),
        settings.optimizer,
    )
    stops = []
    if train.patience:
        stops.append(keras.callbacks.EarlyStopping(MONITOR, mode="max", patience=train.patience))
    with (
        make_dataset(
            image_set,
            TRAIN,
            worker_batch_size=train.worker_batch_size,
            seed=train.seed,
            shuffle_mb=settings.data.shuffle_mb,
        ) as train_images,
        make_dataset(image_set, VAL, worker_batch_size=train.worker_batch_size) as val_images,
    ):
        fitted = model.fit(
            train_images,
            validation_data=val_images,
            epochs=train.epochs,
            callbacks=[*callbacks, *stops],
            shuffle=False,  # the feed has shuffled already
            verbose=0,
        )
    return model, fitted.history


def compile_model(model: keras.Model, settings: OptimizerSettings) -> keras.Model:
    """Give a model that ends in logits its loss, metric and optimizer."""
    model.compile(
        optimizer=keras.optimizers.get(
            {"class_name": settings.name, "config": {"learning_rate": settings.learning_rate}}
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model
