"""The images to score: an image set, or anything else that ingest reads, opened without reading an image."""

from collections.abc import Mapping
from dataclasses import dataclass

from pyspark.sql import SparkSession

from cnnlib.config import ScoreInputSettings
from cnnlib.errors import ConfigError
from cnnlib.image_set.contract import open_image_set
from cnnlib.image_set.splits import SPLITS
from cnnlib.sealed.frozen.images import ImageSpec
from cnnlib.storage.folder import Folder
from pipelines.sources import MAX_IMAGE_BYTES, open_source
from pipelines.sources.image_folder import unlabelled_images
from pipelines.sources.image_set import images_of_set
from pipelines.sources.source import Images
from pipelines.spark.tasks import tasks_for

# A task gets more images if they are small, because its start would take long beside its work.
IMAGES_A_TASK = 16384
MOST_IMAGES_A_TASK = 65536
PIXEL_BYTES_A_TASK = 64 * 2**20


@dataclass(frozen=True)
class ScoreInput:
    """The images to score.

    `raw_shape` (height, width, channels) is set if they are arrays, and None if they are image files. `uri` is their
    location, and `digest` changes when they change.
    """

    images: Images
    rows: int
    raw_shape: tuple[int, int, int] | None
    uri: str
    digest: str


def read_input(spark: SparkSession, settings: ScoreInputSettings, spec: ImageSpec) -> ScoreInput:
    """Open the images to score with a model that takes images of a spec.

    Raises ConfigError, ImageSetError or SourceError if they cannot be opened, ModelError if they are an image set with
    another spec.
    """
    if settings.format == "image_set":
        return _read_image_set(spark, settings, spec)
    source = open_source(spark, settings.as_source())
    tasks = _tasks_for(spark, source.found, spec)
    uri = settings.path or settings.format
    return ScoreInput(source.images(None, tasks), source.found, source.raw_shape, uri, source.digest)


def _read_image_set(spark: SparkSession, settings: ScoreInputSettings, spec: ImageSpec) -> ScoreInput:
    if settings.path is None:
        raise ConfigError("input.path is missing; name the image set to score")
    image_set = open_image_set(settings.path)
    image_set.check_fits(spec)
    if settings.split == "all":
        splits = [split for split in SPLITS if image_set.splits[split].rows]
    else:
        splits = [settings.split]
    rows = sum(image_set.split(split).rows for split in splits)
    raw_shape = image_set.image.shape if image_set.image.encoding == "raw" else None
    images = images_of_set(spark, image_set, splits, _tasks_for(spark, rows, spec))
    return ScoreInput(images, rows, raw_shape, image_set.folder.uri, image_set.fingerprint)


def read_files(
    spark: SparkSession, folder: Folder, sizes: Mapping[str, int], digest: str, spec: ImageSpec
) -> ScoreInput:
    """Open image files of a folder; `sizes` has their bytes, by name relative to the folder."""
    tasks = _tasks_for(spark, len(sizes), spec)
    images = unlabelled_images(spark, folder, sizes, tasks, MAX_IMAGE_BYTES)
    return ScoreInput(images, len(sizes), None, folder.uri, digest)


def _tasks_for(spark: SparkSession, images: int, spec: ImageSpec) -> int:
    fitting = PIXEL_BYTES_A_TASK // spec.size_bytes
    return tasks_for(spark, images, max(IMAGES_A_TASK, min(fitting, MOST_IMAGES_A_TASK)))
