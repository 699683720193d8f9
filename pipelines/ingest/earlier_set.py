"""The set that an ingest finds at its output: was it made with the same settings, and which parts are still valid?"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from cnnlib.config import IngestSettings, flatten_values, own_source_settings
from cnnlib.config.settings import SAME_IMAGE_SET, fields_of, names_marked
from cnnlib.errors import OutputExistsError
from cnnlib.image_set import contract
from cnnlib.image_set.contract import CODE, MESSAGE, ImageSet, open_image_set
from cnnlib.image_set.ledger import FILE, FILES_SCHEMA, GIVEN_SPLIT, GROUP, PART, PIXEL_ID, SCHEMA, VERSION
from cnnlib.storage.folder import Folder, list_own_files, open_folder
from cnnlib.storage.parts import PartFile
from pipelines.sources.files import READ_FAILED
from pipelines.sources.source import FileNames, Source, names_frame
from pipelines.spark.read_parts import read_parts

_NOT_COMPARED = names_marked(IngestSettings, SAME_IMAGE_SET)
# Sets of earlier versions lack settings that came later. They were made as with the defaults.
_DEFAULTS = {name: field.default for name, field in fields_of(IngestSettings).items() if not field.is_required()}


@dataclass(frozen=True)
class Unchanged:
    """The parts of an earlier set that are still valid: ledger rows, their rejects by code, and data files by path.

    `changed_files` are the source's files to decode; None means all files.
    """

    changed_files: FileNames = None
    ledger: DataFrame | None = None
    rejected: Counter[str] = field(default_factory=Counter)
    parts: dict[str, PartFile] = field(default_factory=dict)


def described(settings: IngestSettings) -> dict[str, Any]:
    """Return the settings as dataset.json keeps them: with the full path of the source, which identifies it."""
    content = settings.model_dump(mode="json")
    if settings.source.path is not None and settings.source.format != "table":
        content["source"]["path"] = open_folder(settings.source.path).uri
    return content


def earlier_set(folder: Folder, settings: IngestSettings) -> ImageSet | None:
    """Return the set at the output, or None if there is none, or if it will be replaced.

    Raises OutputExistsError if it was made with other settings, or if the folder has files that are not ours.
    """
    names = list_own_files(folder, contract.COMMIT)
    if settings.output.overwrite or contract.COMMIT not in names:
        return None
    earlier = open_image_set(folder.uri)
    there, asked = (comparable(content) for content in (earlier.settings, described(settings)))
    differing = sorted(name for name in there | asked if there.get(name, _DEFAULTS.get(name)) != asked.get(name))
    if differing:
        name = differing[0]
        raise OutputExistsError(
            f"output.path={folder.uri} has an image set made with {name}={there.get(name)}, not {asked.get(name)}"
            f"{f' (and {len(differing) - 1} more settings differ)' if len(differing) > 1 else ''}; choose another "
            "folder, or pass --output.overwrite true"
        )
    return earlier


def refuse_changed_source(earlier: ImageSet, settings: IngestSettings) -> None:
    """Raise OutputExistsError unless the settings allow to bring a set up to date with its changed source."""
    if settings.output.mode != "append":
        raise OutputExistsError(
            f"source.path={settings.source.path} has changed since the image set at output.path={earlier.folder.uri} "
            "was made; pass --output.mode append to bring the set up to date, or --output.overwrite true to make a new "
            "one"
        )


def unchanged_rows(spark: SparkSession, earlier: ImageSet, source: Source) -> Unchanged:
    """Compare the source's files of an earlier set with the present ones. Return the parts that are still valid."""
    before, now = _versions(read_source_files(earlier)), _versions(source.files)
    dropped = [name for name, version in before.items() if now.get(name) != version]
    changed = [name for name, version in now.items() if before.get(name) != version]
    ledger = read_parts(spark, earlier.folder, [file.path for file in earlier.ledger], SCHEMA)
    names = F.broadcast(names_frame(spark, dropped))
    lost_pixels = ledger.join(names, FILE, "left_semi").select(PIXEL_ID).distinct()
    same = ledger.join(names, FILE, "left_anti")
    # The pixels of a duplicate were not kept. It must be decoded again if the kept copy is gone, or if it may be the
    # one to keep now: the split of its group, or of images without a given split, may have changed.
    splits = F.countDistinct(F.struct(GROUP, GIVEN_SPLIT))
    undecided = F.max(F.col(GIVEN_SPLIT).isNull())
    copies = same.groupBy(PIXEL_ID).agg(splits.alias("splits"), undecided.alias("undecided"))
    changeable = copies.where("splits > 1 and undecided").select(PIXEL_ID)
    without_pixels = same.where(F.col(PART).isNull() & F.col(CODE).isNull())
    to_decode = without_pixels.join(lost_pixels.union(changeable), PIXEL_ID, "left_semi")
    again = [row[FILE] for row in to_decode.select(FILE).union(_failed(same).select(FILE)).distinct().collect()]
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
    """Return whether a set has rejects that storage caused, and not the file itself."""
    if "unreadable" not in earlier.rejected_by_code:
        return False
    ledger = read_parts(spark, earlier.folder, [file.path for file in earlier.ledger], SCHEMA)
    return bool(_failed(ledger).head(1))


def _failed(ledger: DataFrame) -> DataFrame:
    return ledger.where(F.col(MESSAGE).startswith(READ_FAILED))


def read_source_files(image_set: ImageSet) -> pa.Table:
    """Read the table of the source's files that a set was made of."""
    folder = image_set.folder
    return pa.concat_tables(
        pq.read_table(folder.fs.open(folder.path(file.path)), schema=FILES_SCHEMA) for file in image_set.source_files
    )


def _versions(files: pa.Table) -> dict[str, str]:
    return dict(zip(files[FILE].to_pylist(), files[VERSION].to_pylist(), strict=True))


def comparable(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings in a dataset.json that decide what is written, by dotted name.

    Other versions of sparkcnn keep more or fewer settings of the source, so its settings are completed with defaults,
    and without those of other formats.

    >>> comparable({"source": {"format": "mnist", "label_column": "label"}, "output": {"path": "set"}})
    {'source.format': 'mnist', 'source.labels': 'given'}
    """
    source = own_source_settings(settings.get("source", {}))
    return {
        name: value
        for name, value in flatten_values(settings | {"source": source}).items()
        if name not in _NOT_COMPARED
    }
