"""What a challenger is tried with beyond its predictions: is it what was trained, and how fast is it?"""

from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from cnnlib.evaluation.speed import images_per_second
from cnnlib.feed.blocks import read_split
from cnnlib.image_set.contract import ImageSet
from cnnlib.quiet import import_tensorflow_quietly
from cnnlib.sealed.frozen.images import encode_png
from cnnlib.sealed.frozen.predict import PROBABILITIES
from cnnlib.sealed.seal import open_sealed
from pipelines.score.worker_model import load_in_task, ship_model
from pipelines.spark.tasks import run_on_partitions
from pipelines.tracking.registry import RegisteredModel
from pipelines.tracking.tracker import BEST_EPOCH_TAG, Tracker

# Images of the golden batch: as many as fit so many bytes, within these bounds.
GOLDEN_BYTES = 16 * 2**20
FEWEST_GOLDEN, MOST_GOLDEN = 16, 2048
# Enough to find a model that differs; a large one takes its time in the driver.
PARITY_IMAGES = 64


def golden_images(image_set: ImageSet, split: str) -> np.ndarray:
    """The first images of a split, (images, height, width, channels) uint8."""
    most = min(MOST_GOLDEN, max(FEWEST_GOLDEN, GOLDEN_BYTES // image_set.image.size_bytes))
    taken: list[np.ndarray] = []
    with closing(read_split(image_set, split)) as blocks:
        for images, _ in blocks:
            taken.append(images)
            if sum(map(len, taken)) >= most:
                break
    return np.concatenate(taken)[:most]


def difference_from_trained(trained: Tracker, registered: RegisteredModel, images: np.ndarray) -> float | None:
    """The largest difference between probabilities of the registered model and of the checkpoint it was made from.

    The registered one is given images (images, height, width, channels) uint8 as PNG files, so that its decoder is
    tried too; `trained` is its run. None where that has no checkpoint.
    """
    import_tensorflow_quietly()
    import keras

    from cnnlib.training.checkpoints import read_checkpoint

    best = trained.tag(BEST_EPOCH_TAG)
    if best is None:
        return None
    images = images[:PARITY_IMAGES]
    with TemporaryDirectory(prefix="sparkcnn-trained-") as temporary:
        model, _ = read_checkpoint(trained.fetch_checkpoint(int(best), Path(temporary)))
    expected = keras.ops.convert_to_numpy(keras.ops.softmax(model(images, training=False)))
    rows = open_sealed(registered.folder).predict_images([encode_png(image) for image in images])
    # A row that could not be decoded has no probabilities, and differs as much as can be.
    given = [row if row is not None else np.full(expected.shape[1], np.nan) for row in rows[PROBABILITIES]]
    difference = np.abs(np.array(given) - expected).max()
    return 1.0 if np.isnan(difference) else float(difference)


def speeds_side_by_side(
    spark: SparkSession, models: Sequence[RegisteredModel], images: np.ndarray
) -> tuple[list[float], float]:
    """Images/s of some models in one Spark task, in turns; and the first one's as a share of the last one's."""
    archives = [ship_model(spark, model.folder) for model in models]

    def work(batches: Iterable[pa.RecordBatch], task: int, attempt: int) -> np.ndarray:
        return images_per_second([load_in_task(archive).predict_pixels for archive in archives], images)

    (rates,) = run_on_partitions(spark.range(0, 1, 1, 1).toDF("id"), work)
    return np.median(rates, axis=0).tolist(), float(np.median(rates[:, 0] / rates[:, -1]))
