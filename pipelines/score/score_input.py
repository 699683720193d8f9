"""The images to score: an image set, or anything else that ingest reads, opened without reading an image."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from pyspark.sql import SparkSession

from cnnlib.config import ScoreInputSettings, SourceSettings
from cnnlib.errors import ConfigError, SourceError
from cnnlib.image_set.contract import open_image_set
from cnnlib.image_set.splits import SPLITS
from cnnlib.sealed.frozen.images import ImageSpec
from cnnlib.storage.folder import Folder
from pipelines.sources import MAX_IMAGE_BYTES, open_source
from pipelines.sources.files import ListedFile, find_images
from pipelines.sources.image_folder import unlabelled_images
from pipelines.sources.image_set import images_of_set
from pipelines.sources.source import Images
from pipelines.spark.tasks import tasks_for

# A task gets more images if they are small, because its start would take long beside its work.
IMAGES_A_TASK = 16384
MOST_IMAGES_A_TASK = 65536
PIXEL_BYTES_A_TASK = 64 * 2**20
# Messages about a source name the settings of ingest. Score has the same ones in another section.
_SETTING_OF_SOURCE = re.compile(rf"\bsource\.(?=({'|'.join(SourceSettings.model_fields)})\b)")


@dataclass(frozen=True)
class ScoreInput:
    """The images to score.

    `raw_shape` (height, width, channels) is set if they are arrays, and None if they are image files. `uri` is their
    location, and `digest` changes when they change. `left_out` counts the files that are no images.
    """

    images: Images
    rows: int
    raw_shape: tuple[int, int, int] | None
    uri: str
    digest: str
    left_out: Counter[str] = field(default_factory=Counter)


def read_input(spark: SparkSession, settings: ScoreInputSettings, spec: ImageSpec) -> ScoreInput:
    """Open the images to score with a model that takes images of a spec.

    Raises ConfigError, ImageSetError or SourceError if they cannot be opened, ModelError if they are an image set with
    another spec.
    """
    if settings.format == "image_set":
        return _read_image_set(spark, settings, spec)
    try:
        source = open_source(spark, settings.as_source())
    except SourceError as error:
        raise SourceError(_SETTING_OF_SOURCE.sub("input.", error.message)) from error
    tasks = _tasks_for(spark, source.found, spec)
    uri = settings.path or settings.format
    return ScoreInput(source.images(None, tasks), source.found, source.raw_shape, uri, source.digest, source.left_out)


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
    """Open the images among some files of a folder; `sizes` has the bytes of the files, by name relative to it."""
    found = find_images(spark, folder, [ListedFile(name, size, "") for name, size in sizes.items()])
    sizes = {file.name: file.size_bytes for file in found.images}
    images = unlabelled_images(spark, folder, sizes, _tasks_for(spark, len(sizes), spec), MAX_IMAGE_BYTES)
    return ScoreInput(images, len(sizes), None, folder.uri, digest, found.counts)


def _tasks_for(spark: SparkSession, images: int, spec: ImageSpec) -> int:
    fitting = PIXEL_BYTES_A_TASK // spec.size_bytes
    return tasks_for(spark, images, max(IMAGES_A_TASK, min(fitting, MOST_IMAGES_A_TASK)))
