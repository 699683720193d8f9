"""Decide what depends on all images: which image is a duplicate of another, and its split. Ledger in, ledger out.

The split rule itself is `cnnlib.image_set.splits`, which Spark calls for each row.
"""

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import DoubleType, StringType

from cnnlib.config import SplitSettings
from cnnlib.image_set.contract import CODE, PATH
from cnnlib.image_set.ledger import (
    CLASS_NAME,
    CONFLICTING,
    DUPLICATE,
    GIVEN_SPLIT,
    GROUP,
    KEPT,
    OUTCOME,
    PIXEL_ID,
    REJECTED,
    SPLIT,
)
from cnnlib.image_set.splits import TEST, TRAIN, VAL, assign_split, split_key, unit_interval
from pipelines.ingest.near_duplicates import held_out_rank, with_common_keys

# Columns that exist while a decision is made, and are not in its result.
_KEY = "split_key"
_COMMON_SPLIT = "common_split"
_OF_GROUP = "split_of_group"
_HELD_OUT = "held_out"
_POSITION = "position"


def decide(ledger: DataFrame, settings: SplitSettings, *, grouped: bool) -> DataFrame:
    """Fill the last columns of a ledger: outcome, split and conflicting. `grouped` says whether images have groups."""
    columns = ledger.columns
    rejects = ledger.where(F.col(CODE).isNotNull()).withColumn(OUTCOME, F.lit(REJECTED))
    images = ledger.where(F.col(CODE).isNull()).withColumns(
        {_KEY: split_keys(grouped), _COMMON_SPLIT: F.lit(None).cast("string")}
    )
    if settings.near_duplicates is not None:
        images = with_common_keys(images, _KEY, _COMMON_SPLIT, settings.near_duplicates)
    if grouped:
        images = with_split_of_group(images)
    images = keep_first_of_copies(images.withColumn(SPLIT, assigned_splits(settings)), settings)
    if settings.stratify:
        images = stratified(images, settings)
    images = images.withColumn(SPLIT, F.when(F.col(OUTCOME) == KEPT, F.col(SPLIT)))
    return images.select(*columns).unionByName(rejects)


def with_split_of_group(images: DataFrame) -> DataFrame:
    """Give images without a given split the one that other images of their group have; a group has at most one."""
    given = images.where(F.col(GROUP).isNotNull() & F.col(GIVEN_SPLIT).isNotNull())
    of_groups = given.groupBy(GROUP).agg(F.first(GIVEN_SPLIT).alias(_OF_GROUP))
    common_split = F.coalesce(_OF_GROUP, _COMMON_SPLIT)
    return images.join(of_groups, GROUP, "left").withColumn(_COMMON_SPLIT, common_split).drop(_OF_GROUP)


def keep_first_of_copies(images: DataFrame, settings: SplitSettings) -> DataFrame:
    """Decide which of the images with equal pixels is kept, by their own splits.

    An image that is held out comes first (test before val, val before train), so equal pixels are never in two splits.
    After that, the first path decides. If copies have different classes, all are left out; with `conflicts` keep, one
    per class is kept.
    """
    images = images.withColumn(_HELD_OUT, held_out_rank(F.col(SPLIT)))
    same_pixels = Window.partitionBy(PIXEL_ID)
    images = images.withColumn(
        CONFLICTING,
        F.coalesce(F.min(CLASS_NAME).over(same_pixels) != F.max(CLASS_NAME).over(same_pixels), F.lit(False)),
    )
    copies = Window.partitionBy(PIXEL_ID, CLASS_NAME).orderBy(_HELD_OUT, PATH)
    kept = F.row_number().over(copies) == 1
    if settings.conflicts == "keep":
        kept &= F.col(_HELD_OUT) == F.min(_HELD_OUT).over(same_pixels)
    else:
        kept &= ~F.col(CONFLICTING)
    return images.withColumn(OUTCOME, F.when(kept, F.lit(KEPT)).otherwise(F.lit(DUPLICATE)))


def stratified(images: DataFrame, settings: SplitSettings) -> DataFrame:
    """Divide the kept images without a given split so that the fractions hold in each class, in the order of hashes."""
    divided = (F.col(OUTCOME) == KEPT) & F.col(GIVEN_SPLIT).isNull()
    # A column of its own, because Spark cannot call Python inside a window.
    images = images.withColumn(_POSITION, positions(F.when(divided, F.col(_KEY)), settings.salt))
    of_class = Window.partitionBy(CLASS_NAME, divided)
    number = F.row_number().over(of_class.orderBy(_POSITION, PIXEL_ID))
    count = F.count("*").over(of_class)
    test = F.round(count * settings.test_fraction)
    val = F.round(count * settings.val_fraction)
    split = F.when(number <= test, TEST).when(number <= test + val, VAL).otherwise(TRAIN)
    return images.withColumn(SPLIT, F.when(divided, split).otherwise(F.col(SPLIT)))


# Plain Python functions, not pandas UDFs: both call the rule once per row, but a pandas UDF would also make each Python
# process of Spark import pandas.


def split_keys(grouped: bool) -> Column:
    """Return the `split_key` of each row."""
    if not grouped:  # then it is the id of the pixels, without a way through Python
        return F.col(PIXEL_ID)
    return F.udf(split_key, StringType(), useArrow=False)(PIXEL_ID, GROUP)


def positions(keys: Column, salt: str) -> Column:
    """Return the `unit_interval` of each key; null for null."""

    def position(key: str | None) -> float | None:
        return None if key is None else unit_interval(key, salt)

    return F.udf(position, DoubleType(), useArrow=False)(keys)


def assigned_splits(settings: SplitSettings) -> Column:
    """Return the `assign_split` of each row; a split that the source or other images give stands."""
    fractions = {"val_fraction": settings.val_fraction, "test_fraction": settings.test_fraction}
    salt = settings.salt

    def assigned_split(key: str, given: str | None) -> str:
        return assign_split(key, given=given, salt=salt, **fractions)

    return F.udf(assigned_split, StringType(), useArrow=False)(F.col(_KEY), F.coalesce(GIVEN_SPLIT, _COMMON_SPLIT))
