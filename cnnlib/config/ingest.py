"""The settings of ingest."""

from typing import Literal

from pydantic import Field, model_validator

from cnnlib.config.settings import SAME_IMAGE_SET, Settings
from cnnlib.config.sources import SourceSettings


class ImageSettings(Settings):
    """What every image of the set becomes."""

    height: int | None = Field(None, gt=0, description="pixels; null takes the source's own if all its images have one")
    width: int | None = Field(None, gt=0, description="pixels; null takes the source's own if all its images have one")
    channels: Literal[1, 3] | None = Field(
        None, description="1 for grey or 3 for RGB; null takes the source's own if it is known, else 3"
    )
    resize: Literal["stretch", "fit_and_pad", "shorter_side_and_crop", "none"] = Field(
        "stretch",
        description="how an image of another size gets this size: stretch changes its proportions, fit_and_pad adds "
        "black borders, shorter_side_and_crop cuts its edges off, none rejects it",
    )
    encoding: Literal["raw", "png", "jpeg"] = Field(
        "raw", description="how pixels are stored: raw is uint8, height x width x channels; jpeg loses some detail"
    )
    quality: int = Field(90, ge=1, le=100, description="quality of jpeg encoding")


class SplitSettings(Settings):
    """How images without a given split are divided: by a stable hash of their pixels."""

    val_fraction: float = Field(0.1, ge=0, lt=1, description="fraction of the images for validation")
    test_fraction: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="fraction of the images for test; not used if the source has test images of its own",
    )
    salt: str = Field("sparkcnn", description="text that changes the hash, and with it every assignment")
    stratify: bool = Field(
        False,
        description="make the fractions hold in each class, within one image; then new images may move earlier ones",
    )
    near_duplicates: int | None = Field(
        None,
        ge=0,
        le=16,
        description="keep images in one split if their perceptual hashes differ in at most this many of 64 bits (4 "
        "finds other sizes and qualities of an image); then new images may move earlier ones",
    )
    conflicts: Literal["leave_out", "keep"] = Field(
        "leave_out", description="what to do with images of equal pixels in different classes; keep keeps one per class"
    )

    @model_validator(mode="after")
    def _leaves_train_images(self) -> "SplitSettings":
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError("val_fraction + test_fraction must be below 1, or no image is left to train on")
        if self.stratify and self.near_duplicates is not None:
            raise ValueError("stratify divides single images, near_duplicates keeps some together; choose one")
        if self.stratify and self.conflicts == "keep":
            raise ValueError(
                "stratify divides each class by itself, conflicts keep puts one image in two classes; choose one"
            )
        return self


class RejectsSettings(Settings):
    """What to do about images that cannot be read."""

    max_fraction: float = Field(
        0.05,
        ge=0,
        le=1,
        description="largest fraction of rejects among the images found; above it the job fails with exit status 3",
    )
    max_pixels: int = Field(
        89_478_485,
        gt=0,
        description="reject an image if its header tells more pixels than this; models that are trained on the set do "
        "so too; of a JPEG that is unpacked smaller, fewer pixels count",
    )
    max_mb: float = Field(256.0, gt=0, le=1024, description="reject a file of more megabytes than this")
    min_side: int = Field(
        1,
        gt=0,
        description="reject an image if a side has fewer pixels than this; models that are trained on the set do so "
        "too",
    )
    keep_truncated: bool = Field(
        False,
        description="take what is there of a JPEG whose end is missing: its rest is grey, and the ledger marks it; "
        "models that are trained on the set do so too",
    )


class ImageSetOutputSettings(Settings):
    """Where the image set goes, and how large its files are."""

    path: str = Field(json_schema_extra=SAME_IMAGE_SET, description="folder of the image set, as a path or URI")
    overwrite: bool = Field(
        False,
        json_schema_extra=SAME_IMAGE_SET,
        description="replace an existing set; readers see the old set until the new one is complete",
    )
    mode: Literal["create", "append"] = Field(
        "create",
        json_schema_extra=SAME_IMAGE_SET,
        description="append brings a set of the same source and settings up to date, and decodes only new and changed "
        "files",
    )
    rows_per_file: int = Field(8192, gt=0, description="approximate number of images per Parquet file, over all splits")
    row_group_mb: float = Field(
        2.0, gt=0, description="megabytes of pixels per row group: the feed reads and shuffles one row group at a time"
    )


class IngestSettings(Settings):
    """Read a collection of images and make an image set of it."""

    source: SourceSettings
    output: ImageSetOutputSettings
    image: ImageSettings = ImageSettings()
    split: SplitSettings = SplitSettings()
    rejects: RejectsSettings = RejectsSettings()
