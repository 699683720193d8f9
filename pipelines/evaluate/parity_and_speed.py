"""Measure a registered model beyond its predictions: is it the model that was trained, and how fast is it?"""

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
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
from pipelines.tracking.registry import FetchedModel
from pipelines.tracking.tracker import BEST_EPOCH, Tracker

# The golden images are as many as fit into these bytes, within the bounds of the next line.
GOLDEN_BYTES = 16 * 2**20
FEWEST_GOLDEN, MOST_GOLDEN = 16, 2048
# These are enough to find a model that differs. More would take a large model long, because it runs in the driver.
PARITY_IMAGES = 64


@dataclass(frozen=True)
class Speeds:
    """Images per second of two models, and the challenger's speed as a fraction of the champion's.

    They are those of one round: the round with the median fraction.
    """

    champion: float
    challenger: float
    ratio: float


def read_golden_images(image_set: ImageSet, split: str) -> np.ndarray:
    """Read the first images of a split: (images, height, width, channels) uint8."""
    most = min(MOST_GOLDEN, max(FEWEST_GOLDEN, GOLDEN_BYTES // image_set.image.size_bytes))
    golden: list[np.ndarray] = []
    with closing(read_split(image_set, split)) as blocks:
        for images, _ in blocks:
            golden.append(images)
            if sum(map(len, golden)) >= most:
                break
    return np.concatenate(golden)[:most]


def measure_difference_from_trained(trained: Tracker, registered: FetchedModel, images: np.ndarray) -> float | None:
    """Return the largest difference between the probabilities of a registered model and of its best checkpoint.

    `trained` is the MLflow run with the checkpoint. The result is None if the run has none. `images` are (images,
    height, width, channels) uint8. The registered model gets them as PNG files, so this tests its decoder too.
    """
    import_tensorflow_quietly()
    import keras

    from cnnlib.training.checkpoints import read_checkpoint

    best = trained.tag(BEST_EPOCH)
    if best is None:
        return None
    images = images[:PARITY_IMAGES]
    with TemporaryDirectory(prefix="sparkcnn-trained-") as temporary:
        model, _ = read_checkpoint(trained.fetch_checkpoint(int(best), Path(temporary)))
    expected = keras.ops.convert_to_numpy(keras.ops.softmax(model(images, training=False)))
    rows = open_sealed(registered.folder).predict_images([encode_png(image) for image in images])
    # A row that could not be decoded has no probabilities. It counts as the largest possible difference.
    given = [row if row is not None else np.full(expected.shape[1], np.nan) for row in rows[PROBABILITIES]]
    difference = np.abs(np.array(given) - expected).max()
    return 1.0 if np.isnan(difference) else float(difference)


def measure_speeds(spark: SparkSession, champion: FetchedModel, challenger: FetchedModel, images: np.ndarray) -> Speeds:
    """Measure two models in one Spark task, in turns, on images (images, height, width, channels) uint8."""
    archives = [ship_model(spark, model.folder) for model in (challenger, champion)]

    def work(batches: Iterable[pa.RecordBatch], task: int, attempt: int) -> np.ndarray:
        return images_per_second([load_in_task(archive).predict_pixels for archive in archives], images)

    (rates,) = run_on_partitions(spark.range(0, 1, 1, 1).toDF("id"), work)  # (rounds, 2) images/s
    # The two rates of a round were measured one right after the other, so divide them before taking the median.
    ratios = rates[:, 0] / rates[:, 1]
    challenger_speed, champion_speed = rates[np.argsort(ratios)[len(ratios) // 2]].tolist()
    return Speeds(champion_speed, challenger_speed, challenger_speed / champion_speed)
