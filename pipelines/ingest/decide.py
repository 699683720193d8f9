"""What needs to know all images: which is whose duplicate, and splits that depend on others. Ledger in, ledger out."""

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

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
from cnnlib.image_set.splits import TEST, TRAIN, VAL
from pipelines.ingest.near_duplicates import held_out_rank, with_shared_keys

# Set while a decision is made, and gone from its result.
_KEY = "split_key"
_SHARED = "shared_split"
_OF_GROUP = "split_of_group"
_HELD_OUT = "held_out"


def decide(ledger: DataFrame, settings: SplitSettings, *, grouped: bool) -> DataFrame:
    """Fill a ledger's last columns: outcome, split and conflicting. `grouped` says whether any image has a group."""
    columns = ledger.columns
    rejects = ledger.where(F.col(CODE).isNotNull()).withColumn(OUTCOME, F.lit(REJECTED))
    images = ledger.where(F.col(CODE).isNull()).withColumns({_KEY: split_key(), _SHARED: F.lit(None).cast("string")})
    if settings.near_duplicates is not None:
        images = with_shared_keys(images, _KEY, _SHARED, settings.near_duplicates)
    if grouped:
        images = with_split_of_group(images)
    images = keep_first_of_copies(images.withColumn(SPLIT, assigned_split(settings)), settings)
    if settings.stratify:
        images = stratified(images, settings)
    images = images.withColumn(SPLIT, F.when(F.col(OUTCOME) == KEPT, F.col(SPLIT)))
    return images.select(*columns).unionByName(rejects)


def with_split_of_group(images: DataFrame) -> DataFrame:
    """Have images without a given split follow that given to others of their group; a source gives it but one."""
    given = images.where(F.col(GROUP).isNotNull() & F.col(GIVEN_SPLIT).isNotNull())
    of_groups = given.groupBy(GROUP).agg(F.first(GIVEN_SPLIT).alias(_OF_GROUP))
    return images.join(of_groups, GROUP, "left").withColumn(_SHARED, F.coalesce(_OF_GROUP, _SHARED)).drop(_OF_GROUP)


def keep_first_of_copies(images: DataFrame, settings: SplitSettings) -> DataFrame:
    """Decide which of the images with equal pixels is kept, by their own splits.

    One that is held out (test before val) goes before one that is trained on, so no pixels are in two splits; then
    the first path. Where copies have different classes all are left out, or with `conflicts` keep, one a class.
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
    """Divide the kept images that have no given split so that the fractions hold in each class, by hash order."""
    divided = (F.col(OUTCOME) == KEPT) & F.col(GIVEN_SPLIT).isNull()
    of_class = Window.partitionBy(CLASS_NAME, divided)
    place = F.row_number().over(of_class.orderBy(position(settings), PIXEL_ID))
    count = F.count("*").over(of_class)
    test = F.round(count * settings.test_fraction)
    val = F.round(count * settings.val_fraction)
    split = F.when(place <= test, TEST).when(place <= test + val, VAL).otherwise(TRAIN)
    return images.withColumn(SPLIT, F.when(divided, split).otherwise(F.col(SPLIT)))


def split_key() -> Column:
    """`cnnlib.image_set.splits.split_key` of a ledger's row."""
    return F.coalesce(F.concat(F.lit("group "), F.col(GROUP)), F.col(PIXEL_ID))


def position(settings: SplitSettings) -> Column:
    """`cnnlib.image_set.splits.unit_interval` of a row's key."""
    digest = F.sha2(F.concat(F.lit(f"{settings.salt}:"), F.col(_KEY)), 256)
    # 14 digits are 56 bits, which a long holds; a float holds the first 53.
    bits = F.shiftright(F.conv(F.substring(digest, 1, 14), 16, 10).cast("long"), 3)
    return bits / F.lit(2**53)


def assigned_split(settings: SplitSettings) -> Column:
    """`cnnlib.image_set.splits.assign_split` of a row."""
    place = position(settings)
    by_hash = (
        F.when(place < settings.val_fraction, VAL)
        .when(place < settings.val_fraction + settings.test_fraction, TEST)
        .otherwise(TRAIN)
    )
    return F.coalesce(F.col(GIVEN_SPLIT), F.col(_SHARED), by_hash)
