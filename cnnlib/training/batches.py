"""What one rank is trained and validated on: the feed's batches of an image set, as the settings say."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from cnnlib.config import TrainSettings
from cnnlib.feed import make_dataset
from cnnlib.feed.blocks import read_split
from cnnlib.feed.data_wait import DataWait
from cnnlib.feed.replay import image_ids_of_step
from cnnlib.feed.sharding import steps_per_epoch
from cnnlib.image_set.contract import ImageSet
from cnnlib.image_set.splits import TRAIN, VAL
from cnnlib.training.ranks import Ranks
from cnnlib.training.targets import as_targets, balanced_weights


@dataclass(frozen=True)
class Batches:
    """The batches of one of `ranks`. Those of training and validation are open within a `with` block."""

    image_set: ImageSet
    settings: TrainSettings
    ranks: Ranks

    @property
    def classes(self) -> int:
        """How many there are."""
        return len(self.image_set.classes)

    @property
    def heaviest(self) -> float:
        """The largest weight that an image has in training."""
        if self.settings.train.class_weights == "none":
            return 1.0
        return max(balanced_weights(self.image_set.split(TRAIN).class_counts))

    @property
    def steps_per_epoch(self) -> int:
        """Steps that every rank takes in an epoch."""
        rows = self.image_set.split(TRAIN).rows
        return steps_per_epoch(rows, self.settings.train.worker_batch_size, self.ranks.count)

    @contextmanager
    def train(self, first_epoch: int, data_wait: DataWait | None = None) -> Iterator[tf.data.Dataset]:
        """Shuffled batches without end, with targets; see `make_dataset` and `as_targets`."""
        settings = self.settings
        with make_dataset(
            self.image_set,
            TRAIN,
            worker_batch_size=settings.train.worker_batch_size,
            seed=settings.train.seed,
            shuffle_mb=settings.data.shuffle_mb,
            shard=self.ranks.shard,
            first_epoch=first_epoch,
            repeat=True,
            timeout_s=settings.data.timeout_s,
            data_wait=data_wait,
        ) as batches:
            yield as_targets(batches, self.classes, settings, self.image_set.split(TRAIN).class_counts)

    @contextmanager
    def val(self) -> Iterator[tf.data.Dataset]:
        """One pass over this rank's validation images: Keras drops an endless data set's iterator after each."""
        with make_dataset(
            self.image_set,
            VAL,
            worker_batch_size=self.settings.train.worker_batch_size,
            shard=self.ranks.shard,
            timeout_s=self.settings.data.timeout_s,
        ) as batches:
            yield as_targets(batches, self.classes, self.settings)

    def first_val_images(self) -> tuple[np.ndarray, np.ndarray]:
        """At most a batch of validation images, as NumPy: (batch, height, width, channels) uint8, (batch,) int32."""
        with closing(read_split(self.image_set, VAL, timeout_s=self.settings.data.timeout_s)) as blocks:
            images, labels = next(blocks)
        rows = self.settings.train.worker_batch_size
        return images[:rows], labels[:rows]

    def ids_of_step(self, epoch: int, step: int) -> list[str]:
        """The ids of the images that this rank trained on in a step of an epoch, both from 0."""
        return image_ids_of_step(
            self.image_set,
            TRAIN,
            epoch=epoch,
            step=step,
            worker_batch_size=self.settings.train.worker_batch_size,
            seed=self.settings.train.seed,
            timeout_s=self.settings.data.timeout_s,
            shuffle_mb=self.settings.data.shuffle_mb,
            shard=self.ranks.shard,
        )
