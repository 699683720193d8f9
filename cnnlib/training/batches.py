"""The batches of an image set that one rank trains and validates on."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from typing import Any

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
    """The batches of one rank. `train` and `val` are context managers: the batches are open within a `with` block."""

    image_set: ImageSet
    settings: TrainSettings
    ranks: Ranks

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.image_set.classes)

    @property
    def heaviest(self) -> float:
        """Largest weight of an image in training."""
        if self.settings.train.class_weights == "none":
            return 1.0
        return max(balanced_weights(self.image_set.split(TRAIN).class_counts))

    @property
    def steps_per_epoch(self) -> int:
        """Steps of every rank in an epoch."""
        rows = self.image_set.split(TRAIN).rows
        return steps_per_epoch(rows, self.settings.train.worker_batch_size, self.ranks.count)

    @contextmanager
    def train(self, first_epoch: int, data_wait: DataWait | None = None) -> Iterator[tf.data.Dataset]:
        """Open an endless data set of shuffled batches with targets; see `make_dataset` and `as_targets`."""
        with self._shuffled(first_epoch, repeat=True, data_wait=data_wait) as batches:
            yield as_targets(batches, self.classes, self.settings, self.image_set.split(TRAIN).class_counts)

    def _shuffled(self, first_epoch: int, **more: Any) -> AbstractContextManager[tf.data.Dataset]:
        settings = self.settings
        return make_dataset(
            self.image_set,
            TRAIN,
            worker_batch_size=settings.train.worker_batch_size,
            seed=settings.train.seed,
            shuffle_mb=settings.data.shuffle_mb,
            shard=self.ranks.shard,
            first_epoch=first_epoch,
            timeout_s=settings.data.timeout_s,
            **more,
        )

    @contextmanager
    def first_of_epoch(self, epoch: int, rows: int) -> Iterator[tf.data.Dataset]:
        """Open the first batches of an epoch (from 0) again, with labels: at least `rows` of all ranks, if it has them.

        (images (batch, height, width, channels) uint8, labels (batch,) int32), neither augmented nor mixed
        """
        with self._shuffled(epoch) as batches:
            yield batches.take(math.ceil(rows / (self.settings.train.worker_batch_size * self.ranks.count)))

    @contextmanager
    def val(self) -> Iterator[tf.data.Dataset]:
        """Open one pass over this rank's validation images.

        It is not endless, because Keras drops an endless data set's iterator after each validation.
        """
        with make_dataset(
            self.image_set,
            VAL,
            worker_batch_size=self.settings.train.worker_batch_size,
            shard=self.ranks.shard,
            timeout_s=self.settings.data.timeout_s,
        ) as batches:
            yield as_targets(batches, self.classes, self.settings)

    def first_val_images(self) -> tuple[np.ndarray, np.ndarray]:
        """Return at most a batch of validation images: (batch, height, width, channels) uint8, (batch,) int32."""
        with closing(read_split(self.image_set, VAL, timeout_s=self.settings.data.timeout_s)) as blocks:
            images, labels = next(blocks)
        rows = self.settings.train.worker_batch_size
        return images[:rows], labels[:rows]

    def ids_of_step(self, epoch: int, step: int) -> list[str]:
        """Return the ids of the images of this rank in a step of an epoch, both counted from 0."""
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
