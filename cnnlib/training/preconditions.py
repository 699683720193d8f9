"""What an image set and settings need before a training can start. No TensorFlow here: its import takes seconds."""

from cnnlib.config import TrainSettings, TransferSettings
from cnnlib.errors import ConfigError
from cnnlib.feed.sharding import steps_per_epoch
from cnnlib.image_set.contract import ImageSet
from cnnlib.image_set.splits import TRAIN, VAL
from cnnlib.sealed.starting_weights import is_path, weights_file


def check_classes(image_set: ImageSet) -> None:
    """Raise ConfigError for an image set without labels, or with a single class."""
    if not image_set.classes:
        raise ConfigError(
            f"{image_set.folder.uri} has no labels, because it was ingested with source.labels=none; training needs "
            "labels: ingest again with source.labels=given"
        )
    if len(image_set.classes) < 2:
        raise ConfigError(f"{image_set.folder.uri} has one class, {image_set.classes[0]}; training needs two or more")


def check_fit(image_set: ImageSet, settings: TrainSettings) -> None:
    """Raise ImageSetError or ConfigError for a training that would fail, before anything starts."""
    check_classes(image_set)
    taken = {"name", "image_shape", "classes", "mean", "std", "weights"} & settings.model.options.keys()
    if taken:
        raise ConfigError(
            f"model.options has {', '.join(sorted(taken))}; remove it, because the image set or another setting "
            "already decides it"
        )
    weights = settings.model.weights
    if weights is None and settings.transfer != TransferSettings():
        raise ConfigError(
            "transfer says how to train on model.weights, but model.weights is not set; set it, or remove transfer"
        )
    # Workers may have files that this machine does not have.
    if weights is not None and not settings.train.workers and is_path(weights):
        weights_file(weights)
    workers = max(settings.train.workers, 1)
    row_groups = image_set.split(TRAIN).row_groups
    if row_groups < workers:
        raise ConfigError(
            f"train.workers={workers} exceeds the {row_groups} row groups of {image_set.folder.uri}'s train split; "
            "lower it, or ingest with a smaller output.row_group_mb or output.rows_per_file"
        )
    for split in (TRAIN, VAL):
        steps_per_epoch(image_set.split(split).rows, settings.train.worker_batch_size, workers)
