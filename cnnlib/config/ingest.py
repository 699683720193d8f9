"""The settings of ingest."""

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from cnnlib.config.settings import Settings

SourceFormat = Literal["mnist", "idx", "cifar", "image_folder", "manifest", "table", "webdataset"]


class SourceSettings(Settings):
    """Where the images come from."""

    format: SourceFormat = Field(
        description="mnist (comes with sparkcnn, needs no path), idx (MNIST's own format), cifar (the binary files), "
        "image_folder (DIR/CLASS/** or DIR/{train,val,test}/CLASS/**), manifest (a CSV, JSON lines or Parquet file "
        "with path, label, and if need be split and group), table (a Spark table, or Parquet, with path, content and "
        "a label), or webdataset (a folder of tar shards)"
    )
    path: str | None = Field(
        None, description="folder, file or table, as a path or any URI that Spark's file systems know"
    )
    labels: Literal["given", "none"] = Field(
        "given", description="none takes images without labels, for scoring; with given they are rejects"
    )
    label_column: str = Field("label", description="table: column of the label")
    label_pattern: str | None = Field(
        None,
        description="table: regular expression whose first group, in the path, is the label, instead of label_column",
    )
    split_column: str | None = Field(None, description="table: column with train, val, test or null")
    group_column: str | None = Field(None, description="table: column of what must stay in one split, e.g. a patient")

    @field_validator("label_pattern")
    @classmethod
    def _has_a_group(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                groups = re.compile(pattern).groups
            except re.error as error:
                raise ValueError(f"label_pattern is no regular expression: {error}") from error
            if not groups:
                raise ValueError("label_pattern needs a group in parentheses, e.g. ([^/]+)/[^/]+$")
        return pattern


class ImageSettings(Settings):
    """What every image of the set becomes."""

    height: int | None = Field(None, gt=0, description="pixels; the source's own where it has one size (idx)")
    width: int | None = Field(None, gt=0, description="pixels; the source's own where it has one size (idx)")
    channels: Literal[1, 3] | None = Field(None, description="1 grey or 3 RGB; the source's own for idx, else 3")
    resize: Literal["stretch", "fit_and_pad", "shorter_side_and_crop", "none"] = Field(
        "stretch",
        description="how another size is brought to this one: stretch changes the proportions, fit_and_pad puts black "
        "beside, shorter_side_and_crop cuts off, none rejects",
    )
    encoding: Literal["raw", "png", "jpeg"] = Field(
        "raw", description="how pixels are stored: raw is uint8, height x width x channels; jpeg loses some detail"
    )
    quality: int = Field(90, ge=1, le=100, description="of encoding jpeg")


class SplitSettings(Settings):
    """How images without a given split are divided, by a stable hash of their content."""

    val_fraction: float = Field(0.1, ge=0, lt=1, description="share of images for validation")
    test_fraction: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of images for test; unused where the source sets test images apart",
    )
    salt: str = Field("sparkcnn", description="changes the hash, and with it every assignment")
    stratify: bool = Field(
        False,
        description="have the fractions hold in each class, within an image; then new images may move earlier ones",
    )
    near_duplicates: int | None = Field(
        None,
        ge=0,
        le=16,
        description="have images in one split whose perceptual hashes differ in at most so many of 64 bits (4 finds "
        "other sizes and qualities of an image); then new images may move earlier ones",
    )
    conflicts: Literal["leave_out", "keep"] = Field(
        "leave_out", description="what to do with images of equal pixels in different classes; keep has one a class"
    )

    @model_validator(mode="after")
    def _leaves_train_images(self) -> "SplitSettings":
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError("val_fraction + test_fraction must be below 1, or no image is left to train on")
        if self.stratify and self.near_duplicates is not None:
            raise ValueError("stratify divides single images, near_duplicates keeps some together; choose one")
        if self.stratify and self.conflicts == "keep":
            raise ValueError("stratify divides each class by itself, conflicts keep has images in two; choose one")
        return self


class RejectsSettings(Settings):
    """What to do about images that cannot be read."""

    max_fraction: float = Field(
        0.05,
        ge=0,
        le=1,
        description="more rejects than this share of the images found fail the job, exit status 3",
    )
    max_pixels: int = Field(89_478_485, gt=0, description="images of more pixels, by their header, are rejected")
    max_mb: float = Field(256.0, gt=0, le=1024, description="files of more megabytes are rejected")
    min_side: int = Field(1, gt=0, description="images with a side of fewer pixels are rejected")


class ImageSetOutputSettings(Settings):
    """Where the image set goes, and how its files are cut."""

    path: str = Field(description="folder of the image set, as a path or URI")
    overwrite: bool = Field(
        False, description="replace what is there; readers see the old set until the new one is whole"
    )
    mode: Literal["create", "append"] = Field(
        "create",
        description="append brings a set of the same source and settings up to date, and decodes only new and changed "
        "files",
    )
    rows_per_file: int = Field(8192, gt=0, description="images a Parquet file, about, over all splits")
    row_group_mb: float = Field(
        2.0, gt=0, description="megabytes of pixels a row group: what the feed reads and shuffles at a time"
    )


class IngestSettings(Settings):
    """Images -> image set."""

    source: SourceSettings
    output: ImageSetOutputSettings
    image: ImageSettings = ImageSettings()
    split: SplitSettings = SplitSettings()
    rejects: RejectsSettings = RejectsSettings()
