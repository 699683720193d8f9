"""Images -> image set: Spark reads and deduplicates, each task decodes and writes its share, the driver commits."""

import math
from functools import partial, reduce
from operator import add

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from cnnlib import imageset
from cnnlib.config import ImageSettings, IngestSettings, SplitSettings
from cnnlib.errors import ConfigError, LimitError
from cnnlib.images import ImageSpec
from cnnlib.imageset import Counts, ImageSet, Split, publish_image_set
from cnnlib.imageset_writer import (
    CLASS_NAME,
    CONTENT,
    COPY,
    GIVEN_SPLIT,
    Share,
    SharePlan,
    channel_statistics,
    fingerprint,
    write_share,
)
from cnnlib.splits import SPLITS
from cnnlib.storage import discard_unpublished, make_writable, new_run_id, open_folder, refuse_occupied
from pipelines.progress import Progress, spark_tasks
from pipelines.sources import SourceImages, read_source
from pipelines.tasks import run_on_partitions

# Even a small set gets a few files, so that several workers and shuffling have something to choose from.
FEWEST_FILES = 4

MB = 1_000_000


def ingest(spark: SparkSession, settings: IngestSettings, progress: Progress | None = None) -> ImageSet:
    """Make an image set of a source and publish it at `settings.output.path`.

    An image that cannot be read becomes a row among the rejects. Raises ConfigError, SourceError and
    OutputExistsError before anything is written, and LimitError when more than `rejects.max_fraction` of the
    images were rejected: then nothing is published, and only the rejects stay, where the message says.
    """
    progress = progress or Progress()
    folder = open_folder(settings.output.path)
    refuse_occupied(folder, imageset.COMMIT, overwrite=settings.output.overwrite)
    source = read_source(spark, settings.source.format, settings.source.path)
    spec = image_spec(settings.image, source)
    plan = SharePlan(
        folder=folder,
        run_id=new_run_id(),
        spec=spec,
        classes=source.classes,
        raw_shape=source.raw_shape,
        split=split_settings(source, settings.split),
        rows_per_row_group=max(1, int(settings.output.row_group_mb * MB / spec.size_bytes)),
    )
    make_writable(folder, imageset.COMMIT)
    tasks = max(FEWEST_FILES, math.ceil(source.found / settings.output.rows_per_file))
    kept_files: set[str] = set()
    try:
        with spark_tasks(progress, spark, f"ingest {source.found:,} images"):
            share = reduce(add, run_on_partitions(mark_copies(source.frame, tasks), partial(write_share, plan)))
        reject_files = share.files.get(imageset.REJECTS, [])
        kept_files = {file.path for file in reject_files}
        _check_rejects(share, plan, settings.rejects.max_fraction)
        image_set = _image_set(share, plan, source.found, settings)
        publish_image_set(image_set, reject_files)
    except BaseException:
        discard_unpublished(folder, imageset.COMMIT, plan.run_id, keep=kept_files)
        raise
    return image_set


def image_spec(settings: ImageSettings, source: SourceImages) -> ImageSpec:
    """What the set's images will be: the settings, and where they are silent the source's own size.

    Raises ConfigError where neither knows.
    """
    own_height, own_width, own_channels = source.raw_shape or (None, None, 3)
    height, width = settings.height or own_height, settings.width or own_width
    if height is None or width is None:
        raise ConfigError(
            "image.height and image.width are missing; the source's images may be of any size, so say to which "
            "to bring them, e.g. --image.height 96 --image.width 96"
        )
    channels = settings.channels or own_channels
    return ImageSpec(height, width, channels, settings.resize, settings.encoding)


def split_settings(source: SourceImages, settings: SplitSettings) -> SplitSettings:
    """Leave the test split alone where the source sets test images apart; see `cnnlib.splits.assign_split`."""
    return settings.model_copy(update={"test_fraction": 0.0}) if source.gives_test else settings


def mark_copies(images: DataFrame, tasks: int) -> DataFrame:
    """Number the images of equal content, 1 first, and spread all over `tasks` partitions, by hash of content.

    The content of copies becomes null: they are only counted. Rows of a partition are in order of image_id, which
    is a random order that is the same in every run.
    """
    order = Window.partitionBy(imageset.IMAGE_ID).orderBy(
        # A copy that lies in no class must not stand for one that does.
        F.col(CLASS_NAME).isNull(),
        # An image that is given as test and otherwise stays in test and leaves training.
        F.col(GIVEN_SPLIT).asc_nulls_last(),
        imageset.PATH,
    )
    return (
        images.repartition(tasks, imageset.IMAGE_ID)
        .withColumn(COPY, F.row_number().over(order))
        .withColumn(CONTENT, F.when(F.col(COPY) == 1, F.col(CONTENT)))
    )


def _check_rejects(share: Share, plan: SharePlan, max_fraction: float) -> None:
    rejected = share.rejected.total()
    if rejected > max_fraction * share.found:
        by_code = ", ".join(f"{count} {code}" for code, count in share.rejected.most_common())
        raise LimitError(
            f"{rejected} of {share.found} images were rejected ({by_code}), more than rejects.max_fraction="
            f"{max_fraction} allows; nothing was published, the rejects are in {plan.folder.uri}/{imageset.REJECTS}"
        )


def _image_set(share: Share, plan: SharePlan, found: int, settings: IngestSettings) -> ImageSet:
    mean, std = channel_statistics(share, plan.spec)
    return ImageSet(
        folder=plan.folder,
        classes=plan.classes,
        image=plan.spec,
        counts=Counts(found, share.kept, share.duplicate, share.rejected.total()),
        splits={
            split: Split(
                rows=share.class_counts[split].total(),
                class_counts=tuple(share.class_counts[split][label] for label in range(len(plan.classes))),
                files=tuple(sorted(share.files.get(split, []), key=lambda file: file.path)),
            )
            for split in SPLITS
        },
        mean=mean,
        std=std,
        settings=settings.model_dump(mode="json"),
        fingerprint=fingerprint(share, plan.spec, plan.classes),
    )
