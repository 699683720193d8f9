"""Make an image set of a collection of images.

Tasks decode the images and write them. Then splits and duplicates are decided on the ledger, and the driver commits.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import zip_longest
from operator import add

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from cnnlib.config import IngestSettings, SplitSettings
from cnnlib.errors import ConfigError, LimitError, SourceError
from cnnlib.image_set import contract
from cnnlib.image_set.contract import CODE, PATH, Counts, ImageSet, Split, publish_image_set
from cnnlib.image_set.ledger import CLASS_NAME, FILES, FILES_SCHEMA, KEPT, LEDGER, PART, REJECTED, ROW, SCHEMA, SPELLED
from cnnlib.image_set.rewrite_parts import RewritePlan, RewrittenParts, rewrite_parts
from cnnlib.image_set.splits import SPLITS, TRAIN, VAL
from cnnlib.image_set.summary import summarise_rows
from cnnlib.image_set.writer import LEDGER_ROWS_PER_ROW_GROUP as ROWS_PER_ROW_GROUP
from cnnlib.image_set.writer import WritePlan, WrittenImages
from cnnlib.reports.image_set_contents import has_report, write_report
from cnnlib.sealed.frozen.images import ImageSpec, Limits
from cnnlib.sources.left_out import in_words
from cnnlib.storage.folder import Folder, new_run_id, open_folder, part_name, remove_unpublished, writing_run
from cnnlib.storage.parts import PartFile, PartWriter
from pipelines.ingest.decide import decide
from pipelines.ingest.decode import decode_images
from pipelines.ingest.earlier_set import (
    Unchanged,
    described,
    earlier_set,
    may_be_read_now,
    refuse_changed_source,
    unchanged_rows,
)
from pipelines.sources import open_source
from pipelines.sources.source import Source
from pipelines.spark.progress import Progress
from pipelines.spark.read_parts import read_parts
from pipelines.spark.session import with_settings
from pipelines.spark.tasks import run_on_partitions, tasks_for

MB = 1_000_000
FEWEST_ROW_GROUPS = 2
_NO_SIZE = (
    "image.height and image.width are missing, and the source's images may have any size; choose one size for all of "
    "them, e.g. --image.height 96 --image.width 96"
)
# The message of too many rejects quotes this many.
EXAMPLES_SHOWN = 3


def ingest(spark: SparkSession, settings: IngestSettings, progress: Progress | None = None) -> ImageSet:
    """Make an image set of a source and publish it at `settings.output.path`.

    If the same settings have already made a set of the same source there, that set is returned. If the source has
    changed since, `output.mode` append brings the set up to date. An image that cannot be read becomes a row among the
    rejects.

    Raises ConfigError, SourceError or OutputExistsError before anything is written. Raises LimitError if more than
    `rejects.max_fraction` of the images were rejected: then nothing is published, and only the files with the rejects
    stay; the message names their folder.

        settings = IngestSettings(
            source=SourceSettings(format="image_folder", path="photos"),
            image=ImageSettings(height=96, width=96),
            output=ImageSetOutputSettings(path="sets/photos"),
        )
        image_set = ingest(spark_session(), settings)
        print(image_set.counts, image_set.classes)
    """
    progress = progress or Progress()
    folder = open_folder(settings.output.path)
    earlier = earlier_set(folder, settings)
    source = open_source(spark, settings.source, int(settings.rejects.max_mb * MB))
    if not source.found:
        raise SourceError(f"source.path={settings.source.path} has no images; check the path and source.format")
    for line in remarks(source, labelled=settings.source.labels == "given"):
        progress.say(line)
    spec = image_spec(settings, source)
    if source.grouped and settings.split.stratify:
        raise ConfigError(
            "split.stratify divides single images, but the source has groups, which must stay whole; leave out "
            "split.stratify, or ingest without groups"
        )
    if earlier is not None:
        again = settings.output.mode == "append" and may_be_read_now(spark, earlier)
        if earlier.source_digest == source.digest and not again:
            progress.say(f"{folder.uri} is up to date: no file of the source has changed")
            complete_report(spark, earlier)
            return earlier
        refuse_changed_source(earlier, settings)
    run_id = new_run_id()
    with writing_run(folder, contract.COMMIT, run_id):
        return _Ingest(spark, settings, source, spec, folder, run_id, progress).run(earlier)


def remarks(source: Source, *, labelled: bool) -> Iterator[str]:
    """Yield what a user should know of a source before its images are read."""
    if source.left_out:
        yield f"left out: {in_words(source.left_out)}"
    yield from (f"warning: {words}" for words in source.warnings)
    alike = source.spelling.warning()
    if alike is not None:
        yield f"warning: {alike}"
    if labelled and len(source.classes) == 1:
        yield f"warning: all images are of one class, {source.classes[0]}; to train, a set needs two or more"


def remarks_on_splits(image_set: ImageSet, *, labelled: bool) -> Iterator[str]:
    """Yield what a user should know of the splits of a new set, before a training refuses them."""
    train, val = image_set.splits[TRAIN], image_set.splits[VAL]
    if labelled and train.rows and not val.rows:
        yield (
            "warning: the val split has no images, and train needs some: raise split.val_fraction; if the source has "
            "splits of its own, give it a val folder, or ingest its train folder alone"
        )
    if train.rows and train.row_groups < FEWEST_ROW_GROUPS:
        yield (
            f"the train split has {train.row_groups} row group{'s' if train.row_groups > 1 else ''}, too few to "
            "shuffle or to train on several workers; lower output.row_group_mb to have more"
        )


def first_rejects(examples: Mapping[str, Sequence[tuple[str, str, bytes | None]]], codes: Sequence[str]) -> list[str]:
    """Describe the first rejects: one of each code in turn, in the order of `codes`. `examples` are those of a summary.

    >>> first_rejects({"truncated": [("a.jpg", "it ends early", None)]}, ["truncated"])
    ['a.jpg: it ends early']
    """
    turns = zip_longest(*(examples.get(code, ()) for code in codes))
    found = [f"{one[0]}: {one[1]}" for turn in turns for one in turn if one is not None]
    return found[:EXAMPLES_SHOWN]


def complete_report(spark: SparkSession, image_set: ImageSet) -> None:
    """Write the report of a set if it is missing, because a run died between its commit and its report."""
    if not has_report(image_set):
        ledger = read_parts(spark, image_set.folder, [file.path for file in image_set.ledger], SCHEMA)
        write_report(image_set, reduce(add, run_on_partitions(ledger, summarise_rows)))


def check_image_size(settings: IngestSettings) -> None:
    """Raise ConfigError if neither the settings nor the source's format give a height and width."""
    own_size = settings.source.format in ("mnist", "idx", "cifar")
    if not own_size and (settings.image.height is None or settings.image.width is None):
        raise ConfigError(_NO_SIZE)


def image_spec(settings: IngestSettings, source: Source) -> ImageSpec:
    """Return the size and encoding of the set's images, from the settings, or else from the source.

    Raises ConfigError if neither gives a height and width.
    """
    image = settings.image
    own_height, own_width, own_channels = source.raw_shape or (None, None, 3)
    height, width = image.height or own_height, image.width or own_width
    if height is None or width is None:
        raise ConfigError(_NO_SIZE)
    return ImageSpec(height, width, image.channels or own_channels, image.resize, image.encoding)


@dataclass(frozen=True)
class _Ingest:
    """One run that has work to do: everything in it is checked already."""

    spark: SparkSession
    settings: IngestSettings
    source: Source
    spec: ImageSpec
    folder: Folder
    run_id: str
    progress: Progress

    def run(self, earlier: ImageSet | None) -> ImageSet:
        unchanged = unchanged_rows(self.spark, earlier, self.source) if earlier else Unchanged()
        kept_files: set[str] = set()
        try:
            written = decode_images(self.spark, self.source, unchanged.changed_files, self._write_plan(), self.progress)
            ledger = self._undecided_ledger(written, unchanged)
            rejected = written.rejected + unchanged.rejected
            if rejected.total() > self.settings.rejects.max_fraction * self.source.found:
                rejects = self._decide_and_rewrite(ledger.where(F.col(CODE).isNotNull()), {})
                kept_files = {file.path for file in rejects.files.get(contract.REJECTS, [])}
                raise self._too_many(rejects)
            rewritten = self._decide_and_rewrite(ledger, _by_path(written.files) | unchanged.parts)
            image_set = self._image_set(rewritten, self._write_source_files())
            self._check_rows(image_set)
            publish_image_set(image_set)
        except BaseException:
            remove_unpublished(self.folder, contract.COMMIT, self.run_id, keep=kept_files)
            raise
        write_report(image_set, rewritten.summary)
        for line in remarks_on_splits(image_set, labelled=self.settings.source.labels == "given"):
            self.progress.say(line)
        return image_set

    @property
    def _split(self) -> SplitSettings:
        """The split settings; without a test fraction if the source has test images of its own, see `assign_split`."""
        changes = {"test_fraction": 0.0} if self.source.gives_test else {}
        return self.settings.split.model_copy(update=changes)

    @property
    def _rows_per_row_group(self) -> int:
        return max(1, int(self.settings.output.row_group_mb * MB / self.spec.size_bytes))

    def _write_plan(self) -> WritePlan:
        limits = self.settings.rejects
        return WritePlan(
            folder=self.folder,
            run_id=self.run_id,
            spec=self.spec,
            classes=self.source.classes,
            raw_shape=self.source.raw_shape,
            split=self._split,
            rows_per_row_group=self._rows_per_row_group,
            rows_per_file=self.settings.output.rows_per_file,
            limits=Limits(limits.max_pixels, int(limits.max_mb * MB), limits.min_side, limits.keep_truncated),
            quality=self.settings.image.quality,
            labelled=self.settings.source.labels == "given",
            class_of=self.source.spelling.class_of,
        )

    def _undecided_ledger(self, written: WrittenImages, unchanged: Unchanged) -> DataFrame:
        """Return the ledger rows of all images, before anything that depends on several images is decided."""
        paths = [file.path for file in written.files.get(LEDGER, [])]
        frames = [read_parts(self.spark, self.folder, paths, SCHEMA)] if paths else []
        if unchanged.ledger is not None:
            frames.append(self._respelled(unchanged.ledger))
        return reduce(DataFrame.unionByName, frames)

    def _respelled(self, ledger: DataFrame) -> DataFrame:
        """Call classes as the source does now: files that came or went may have changed that."""
        # Ledgers of earlier versions have no spelling of the source.
        spelled = F.coalesce(SPELLED, CLASS_NAME)
        class_of = [F.lit(text) for pair in self.source.spelling.class_of.items() for text in pair]
        name = F.coalesce(F.create_map(*class_of).getItem(spelled), spelled) if class_of else spelled
        return ledger.withColumns({SPELLED: spelled, CLASS_NAME: name})

    def _decide_and_rewrite(self, ledger: DataFrame, parts: dict[str, PartFile]) -> RewrittenParts:
        """Decide what depends on several images, and rewrite the part files that differ from the decisions."""
        plan = RewritePlan(self.folder, self.run_id, self.source.classes, parts, self._rows_per_row_group, self.spec)
        tasks = tasks_for(self.spark, self.source.found, self.settings.output.rows_per_file)
        by_part = decide(ledger, self._split, grouped=self.source.grouped).repartition(tasks, F.coalesce(PART, PATH))
        with with_settings(self.spark, _few_partitions(tasks)):
            return reduce(add, run_on_partitions(by_part.sortWithinPartitions(PART, ROW), partial(rewrite_parts, plan)))

    def _check_rows(self, image_set: ImageSet) -> None:
        for name, split in image_set.splits.items():
            written = sum(file.rows for file in split.files)
            if written != split.rows:
                raise SourceError(
                    f"the ledger has {split.rows} images in {name}, but its files have {written}. Nothing was "
                    "published; ingest again with --output.overwrite true, and report this fault"
                )

    def _too_many(self, rejects: RewrittenParts) -> LimitError:
        codes = rejects.summary.rejected
        by_code = ", ".join(f"{count} {code}" for code, count in codes.most_common())
        return LimitError(
            f"{codes.total()} of {self.source.found} images were rejected ({by_code}), more than "
            f"rejects.max_fraction={self.settings.rejects.max_fraction} allows; nothing was published. See the rejects "
            f"in {self.folder.uri}/{contract.REJECTS}"
            + ("; --rejects.keep_truncated true takes what is there of cut JPEGs" if codes["truncated"] else ""),
            quoted=first_rejects(rejects.summary.examples.rejected, [code for code, _ in codes.most_common()]),
        )

    def _write_source_files(self) -> PartFile:
        """Write the table of the source's files, which the next ingest compares with its own."""
        path = f"{FILES}/{part_name(self.run_id, 0, 0)}"
        with PartWriter(self.folder, path, FILES_SCHEMA, ROWS_PER_ROW_GROUP) as writer:
            for batch in self.source.files.to_batches():
                writer.write(batch)
            file = writer.close()
        assert file is not None  # a source has files
        return file

    def _image_set(self, rewritten: RewrittenParts, source_files: PartFile) -> ImageSet:
        summary, classes = rewritten.summary, self.source.classes
        mean, std = summary.channel_statistics(self.spec)
        kept, rejected = summary.outcomes[KEPT], summary.outcomes[REJECTED]
        return ImageSet(
            folder=self.folder,
            classes=classes,
            image=self.spec,
            counts=Counts(self.source.found, kept, summary.found - kept - rejected, rejected),
            splits={
                split: Split(
                    rows=summary.rows(split),
                    class_counts=tuple(summary.class_counts[split, name] for name in classes),
                    files=_in_order(rewritten.files.get(split)),
                )
                for split in SPLITS
            },
            mean=mean,
            std=std,
            settings=described(self.settings),
            fingerprint=summary.fingerprint(self.spec, classes, self.settings.image.quality),
            rejected_by_code=dict(summary.rejected.most_common()),
            conflicting=summary.conflicting,
            rejects=_in_order(rewritten.files.get(contract.REJECTS)),
            ledger=_in_order(rewritten.files.get(LEDGER)),
            source_files=(source_files,),
            source_digest=self.source.digest,
            left_out=dict(self.source.left_out.most_common()),
        )


def _few_partitions(tasks: int) -> dict[str, str]:
    """Return Spark settings for queries on the ledger: as many partitions as tasks, and one job, not one per stage."""
    return {"spark.sql.adaptive.enabled": "false", "spark.sql.shuffle.partitions": str(tasks)}


def _by_path(files: dict[str, list[PartFile]]) -> dict[str, PartFile]:
    return {file.path: file for split in SPLITS for file in files.get(split, [])}


def _in_order(files: list[PartFile] | None) -> tuple[PartFile, ...]:
    return tuple(sorted(files or [], key=lambda file: file.path))
