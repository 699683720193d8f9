"""The set that an ingest finds at its output: whether it is the same, and what of it still holds."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from cnnlib.config import IngestSettings, flatten_values
from cnnlib.errors import OutputExistsError
from cnnlib.image_set import contract
from cnnlib.image_set.contract import CODE, MESSAGE, ImageSet, open_image_set
from cnnlib.image_set.ledger import FILE, FILES_SCHEMA, GIVEN_SPLIT, GROUP, PART, PIXEL_ID, SCHEMA, VERSION
from cnnlib.storage.folder import Folder, open_folder, refuse_foreign_files
from cnnlib.storage.parts import PartFile
from pipelines.sources.files import READ_FAILED
from pipelines.sources.source import Names, Source, names_frame
from pipelines.spark.read_parts import read_parts

# Whether and how to write, which says nothing of what is written.
_NOT_COMPARED = ("output.path", "output.overwrite", "output.mode")


@dataclass(frozen=True)
class Unchanged:
    """What still holds of an earlier set: ledger rows, their rejects by code, and its data files by path.

    `changed_files` are those to decode; None is all.
    """

    changed_files: Names = None
    ledger: DataFrame | None = None
    rejected: Counter[str] = field(default_factory=Counter)
    parts: dict[str, PartFile] = field(default_factory=dict)


def described(settings: IngestSettings) -> dict[str, Any]:
    """The settings as dataset.json keeps them: with the source's full path, which tells it from others."""
    content = settings.model_dump(mode="json")
    if settings.source.path is not None and settings.source.format != "table":
        content["source"]["path"] = open_folder(settings.source.path).uri
    return content


def earlier_set(folder: Folder, settings: IngestSettings) -> ImageSet | None:
    """The set at the output, if there is one that is not to be replaced.

    Raises OutputExistsError where it was made with other settings, or there are files that are not ours.
    """
    names = refuse_foreign_files(folder, contract.COMMIT)
    if settings.output.overwrite or contract.COMMIT not in names:
        return None
    earlier = open_image_set(folder.uri)
    there, asked = (_compared(content) for content in (earlier.settings, described(settings)))
    differing = sorted(name for name in there | asked if there.get(name) != asked.get(name))
    if differing:
        name = differing[0]
        raise OutputExistsError(
            f"output.path={folder.uri} has an image set made with {name}={there.get(name)}, not {asked.get(name)}"
            f"{f' (and {len(differing) - 1} more settings differ)' if len(differing) > 1 else ''}; choose another "
            "folder, or pass --output.overwrite true"
        )
    return earlier


def refuse_changed_source(earlier: ImageSet, settings: IngestSettings) -> None:
    """Raise OutputExistsError unless a set may be brought up to date with its source."""
    if settings.output.mode != "append":
        raise OutputExistsError(
            f"output.path={earlier.folder.uri} has an image set of an earlier state of source.path="
            f"{settings.source.path}; pass --output.mode append to bring it up to date, or --output.overwrite true"
        )


def unchanged_rows(spark: SparkSession, earlier: ImageSet, source: Source) -> Unchanged:
    """Compare an earlier set's files of its source with those that there are now."""
    before, now = _versions(read_source_files(earlier)), _versions(source.files)
    dropped = [name for name, version in before.items() if now.get(name) != version]
    changed = [name for name, version in now.items() if before.get(name) != version]
    ledger = read_parts(spark, earlier.folder, [file.path for file in earlier.ledger], SCHEMA)
    names = F.broadcast(names_frame(spark, dropped))
    gone = ledger.join(names, FILE, "left_semi").select(PIXEL_ID).distinct()
    same = ledger.join(names, FILE, "left_anti")
    # The pixels of a copy were not kept. It must be decoded again where the kept one is gone, and where it may be
    # preferred now: the split of its group, or of images without a given one, may be another.
    of_splits = F.countDistinct(F.struct(GROUP, GIVEN_SPLIT))
    free = F.max(F.col(GIVEN_SPLIT).isNull())
    unlike = same.groupBy(PIXEL_ID).agg(of_splits.alias("splits"), free.alias("free")).where("splits > 1 and free")
    without_pixels = same.where(F.col(PART).isNull() & F.col(CODE).isNull())
    copies = without_pixels.join(gone.union(unlike.select(PIXEL_ID)), PIXEL_ID, "left_semi")
    again = [row[FILE] for row in copies.select(FILE).union(_failed(same).select(FILE)).distinct().collect()]
    if again:
        same = same.join(F.broadcast(names_frame(spark, again)), FILE, "left_anti")
    rejected = same.where(F.col(CODE).isNotNull()).groupBy(CODE).count().collect()
    return Unchanged(
        changed_files=sorted({*changed, *again}),
        ledger=same,
        rejected=Counter({row[CODE]: row["count"] for row in rejected}),
        parts={file.path: file for split in earlier.splits.values() for file in split.files},
    )


def may_be_read_now(spark: SparkSession, earlier: ImageSet) -> bool:
    """Whether a set has rejects for which storage was at fault, and not the file."""
    if "unreadable" not in earlier.rejected_by_code:
        return False
    ledger = read_parts(spark, earlier.folder, [file.path for file in earlier.ledger], SCHEMA)
    return bool(_failed(ledger).head(1))


def _failed(ledger: DataFrame) -> DataFrame:
    return ledger.where(F.col(MESSAGE).startswith(READ_FAILED))


def read_source_files(image_set: ImageSet) -> pa.Table:
    """The files of the source that a set was made of."""
    folder = image_set.folder
    return pa.concat_tables(
        pq.read_table(folder.fs.open(folder.path(file.path)), schema=FILES_SCHEMA) for file in image_set.source_files
    )


def _versions(files: pa.Table) -> dict[str, str]:
    return dict(zip(files[FILE].to_pylist(), files[VERSION].to_pylist(), strict=True))


def _compared(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in flatten_values(settings).items() if name not in _NOT_COMPARED}
