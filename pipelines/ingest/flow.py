"""Images -> image set: tasks decode and write, the whole is decided on the ledger, the driver commits."""

from dataclasses import dataclass
from functools import partial, reduce
from operator import add

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from cnnlib.config import IngestSettings, SplitSettings
from cnnlib.errors import ConfigError, LimitError, SourceError
from cnnlib.image_set import contract
from cnnlib.image_set.contract import CODE, PATH, Counts, ImageSet, Split, publish_image_set
from cnnlib.image_set.ledger import FILES, FILES_SCHEMA, KEPT, LEDGER, PART, REJECTED, ROW, SCHEMA
from cnnlib.image_set.rewrite_parts import RewritePlan, RewrittenParts, rewrite_parts, summarise_rows
from cnnlib.image_set.splits import SPLITS, TRAIN
from cnnlib.image_set.writer import LEDGER_ROWS_PER_ROW_GROUP as ROWS_PER_ROW_GROUP
from cnnlib.image_set.writer import WritePlan, WrittenImages
from cnnlib.reports.image_set_contents import has_report, write_report
from cnnlib.sealed.frozen.images import ImageSpec, Limits
from cnnlib.storage.folder import Folder, discard_unpublished, make_writable, new_run_id, open_folder, part_name
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


def ingest(spark: SparkSession, settings: IngestSettings, progress: Progress | None = None) -> ImageSet:
    """Make an image set of a source and publish it at `settings.output.path`.

    Where the same settings have made a set of the same source there already, that is given as it is; with
    `output.mode` append one of an earlier state of the source is brought up to date. An image that cannot be read
    becomes a row among the rejects. Raises ConfigError, SourceError and OutputExistsError before anything is written,
    and LimitError when more than `rejects.max_fraction` of the images were rejected: then nothing is published, and
    only the rejects stay, where the message says.
    """
    progress = progress or Progress()
    folder = open_folder(settings.output.path)
    earlier = earlier_set(folder, settings)
    source = open_source(spark, settings.source, int(settings.rejects.max_mb * MB))
    if not source.found:
        path, kind = settings.source.path, settings.source.format
        raise SourceError(f"source.path={path} is a {kind} of no images; check the path")
    spec = image_spec(settings, source)
    if source.grouped and settings.split.stratify:
        raise ConfigError(
            "split.stratify divides single images, and the source has groups, which must stay whole; ingest without "
            "split.stratify, or without groups"
        )
    if earlier is not None:
        again = settings.output.mode == "append" and may_be_read_now(spark, earlier)
        if earlier.source_digest == source.digest and not again:
            progress.say(f"{folder.uri} is up to date: no file of the source has changed")
            complete_report(spark, earlier)
            return earlier
        refuse_changed_source(earlier, settings)
    make_writable(folder, contract.COMMIT)
    return _Ingest(spark, settings, source, spec, folder, new_run_id(), progress).run(earlier)


def complete_report(spark: SparkSession, image_set: ImageSet) -> None:
    """Write the report anew where a run has died between its commit and its report."""
    if not has_report(image_set):
        ledger = read_parts(spark, image_set.folder, [file.path for file in image_set.ledger], SCHEMA)
        write_report(image_set, reduce(add, run_on_partitions(ledger, summarise_rows)))


def image_spec(settings: IngestSettings, source: Source) -> ImageSpec:
    """What the set's images will be: the settings, and where they are silent the source's own size.

    Raises ConfigError where neither knows.
    """
    image = settings.image
    own_height, own_width, own_channels = source.raw_shape or (None, None, 3)
    height, width = image.height or own_height, image.width or own_width
    if height is None or width is None:
        raise ConfigError(
            "image.height and image.width are missing; the source's images may be of any size, so say to which "
            "to bring them, e.g. --image.height 96 --image.width 96"
        )
    return ImageSpec(height, width, image.channels or own_channels, image.resize, image.encoding)


@dataclass(frozen=True)
class _Ingest:
    """One run, when it is known what there is to do."""

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
            share = decode_images(self.spark, self.source, unchanged.changed_files, self._share_plan(), self.progress)
            ledger = self._ledger(share, unchanged)
            rejected = share.rejected + unchanged.rejected
            if rejected.total() > self.settings.rejects.max_fraction * self.source.found:
                settled = self._settle(ledger.where(F.col(CODE).isNotNull()), {})
                kept_files = {file.path for file in settled.files.get(contract.REJECTS, [])}
                self._refuse(settled)
            settled = self._settle(ledger, _by_path(share.files) | unchanged.parts)
            image_set = self._image_set(settled, self._write_files())
            self._check_rows(image_set)
            publish_image_set(image_set)
        except BaseException:
            discard_unpublished(self.folder, contract.COMMIT, self.run_id, keep=kept_files)
            raise
        write_report(image_set, settled.tally)
        row_groups = image_set.splits[TRAIN].row_groups
        if row_groups < FEWEST_ROW_GROUPS:
            self.progress.say(
                f"the train split has {row_groups} row groups: too few to shuffle or to train on several workers; a "
                "smaller output.row_group_mb makes more"
            )
        return image_set

    @property
    def _split(self) -> SplitSettings:
        """Leaves the test split alone where the source sets test images apart; see `assign_split`."""
        apart = {"test_fraction": 0.0} if self.source.gives_test else {}
        return self.settings.split.model_copy(update=apart)

    @property
    def _rows_per_row_group(self) -> int:
        return max(1, int(self.settings.output.row_group_mb * MB / self.spec.size_bytes))

    def _share_plan(self) -> WritePlan:
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
            limits=Limits(limits.max_pixels, int(limits.max_mb * MB), limits.min_side),
            quality=self.settings.image.quality,
            labelled=self.settings.source.labels == "given",
        )

    def _ledger(self, share: WrittenImages, unchanged: Unchanged) -> DataFrame:
        """The ledger of all images, not decided yet."""
        paths = [file.path for file in share.files.get(LEDGER, [])]
        frames = [read_parts(self.spark, self.folder, paths, SCHEMA)] if paths else []
        frames += [unchanged.ledger] if unchanged.ledger is not None else []
        return reduce(DataFrame.unionByName, frames)

    def _settle(self, ledger: DataFrame, parts: dict[str, PartFile]) -> RewrittenParts:
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
                    f"the ledger has {split.rows} images in {name}, its files have {written}; nothing was published: "
                    "ingest anew with --output.overwrite true, and report this"
                )

    def _refuse(self, settled: RewrittenParts) -> None:
        codes = settled.tally.rejected
        by_code = ", ".join(f"{count} {code}" for code, count in codes.most_common())
        raise LimitError(
            f"{codes.total()} of {self.source.found} images were rejected ({by_code}), more than "
            f"rejects.max_fraction={self.settings.rejects.max_fraction} allows; nothing was published, the rejects are "
            f"in {self.folder.uri}/{contract.REJECTS}"
        )

    def _write_files(self) -> PartFile:
        """Keep the source's files beside the ledger, for the next ingest to compare."""
        path = f"{FILES}/{part_name(self.run_id, 0, 0)}"
        with PartWriter(self.folder, path, FILES_SCHEMA, ROWS_PER_ROW_GROUP) as writer:
            for batch in self.source.files.to_batches():
                writer.write(batch)
            file = writer.close()
        assert file is not None  # a source has files
        return file

    def _image_set(self, settled: RewrittenParts, source_files: PartFile) -> ImageSet:
        tally, classes = settled.tally, self.source.classes
        mean, std = tally.channel_statistics(self.spec)
        kept, rejected = tally.outcomes[KEPT], tally.outcomes[REJECTED]
        return ImageSet(
            folder=self.folder,
            classes=classes,
            image=self.spec,
            counts=Counts(self.source.found, kept, tally.found - kept - rejected, rejected),
            splits={
                split: Split(
                    rows=tally.rows(split),
                    class_counts=tuple(tally.class_counts[split, name] for name in classes),
                    files=_in_order(settled.files.get(split)),
                )
                for split in SPLITS
            },
            mean=mean,
            std=std,
            settings=described(self.settings),
            fingerprint=tally.fingerprint(self.spec, classes, self.settings.image.quality),
            rejected_by_code=dict(tally.rejected.most_common()),
            conflicting=tally.conflicting,
            rejects=_in_order(settled.files.get(contract.REJECTS)),
            ledger=_in_order(settled.files.get(LEDGER)),
            source_files=(source_files,),
            source_digest=self.source.digest,
        )


def _few_partitions(tasks: int) -> dict[str, str]:
    """Settings for queries on the ledger: as many partitions as tasks, in one job rather than one a stage."""
    return {"spark.sql.adaptive.enabled": "false", "spark.sql.shuffle.partitions": str(tasks)}


def _by_path(files: dict[str, list[PartFile]]) -> dict[str, PartFile]:
    return {file.path: file for split in SPLITS for file in files.get(split, [])}


def _in_order(files: list[PartFile] | None) -> tuple[PartFile, ...]:
    return tuple(sorted(files or [], key=lambda file: file.path))
