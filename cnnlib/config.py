"""Every setting of every job: typed, frozen, closed, with its default and its explanation in one place.

The command line, the YAML files in conf/ and the notebooks all build these classes; `--help` prints the
descriptions below. A class here is a section (`train`), a field a setting (`train.epochs`).
"""

import re
import warnings
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# `register` is the section's name in the command line; the method it hides is one of Python's abstract classes.
warnings.filterwarnings("ignore", message='Field name "register" in "TrainSettings" shadows', category=UserWarning)

SourceFormat = Literal["mnist", "idx", "cifar", "image_folder", "manifest", "table", "webdataset"]


class Settings(BaseModel):
    """A section of settings: immutable, and closed to unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


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


class DataSettings(Settings):
    """What is trained on."""

    path: str = Field(description="an image set that ingest published")
    shuffle_mb: float = Field(
        128.0,
        gt=0,
        allow_inf_nan=False,
        description="megabytes of stored images to shuffle among, beyond the row groups; up to twice as much is "
        "in memory of each worker",
    )
    timeout_s: float = Field(
        120.0, gt=0, allow_inf_nan=False, description="seconds without data after which training ends with an error"
    )


class ModelSettings(Settings):
    """Which network."""

    name: Literal["lenet", "resnet18", "resnet34"] = Field("lenet", description="architecture")
    options: dict[str, Any] = Field({}, description="the architecture's own options, e.g. {activation: tanh}")


class OptimizerSettings(Settings):
    """How weights are updated."""

    name: Literal["adam"] = Field("adam", description="optimizer, by Keras' name")
    learning_rate: float = Field(
        1e-3, gt=0, allow_inf_nan=False, description="step size, as tuned for a global batch of base_batch_size"
    )
    scaling: Literal["none", "linear", "square_root"] = Field(
        "none",
        description="how learning_rate follows the global batch: multiplied by 1, by its ratio to base_batch_size "
        "(Goyal et al. 2017), or by the root of that",
    )
    base_batch_size: int = Field(128, gt=0, description="global batch that learning_rate was tuned for")


class FitSettings(Settings):
    """How long and how training runs."""

    epochs: int = Field(3, gt=0, description="most passes over the train split")
    worker_batch_size: int = Field(128, gt=0, description="images a step on one worker")
    seed: int = Field(0, ge=0, lt=2**32, description="of weights and of the order of images")
    monitor: Literal["val_accuracy", "val_loss", "accuracy", "loss"] = Field(
        "val_accuracy", description="metric by which the best epoch is chosen and patience is counted"
    )
    direction: Literal["auto", "max", "min"] = Field(
        "auto", description="whether monitor is best at its highest or its lowest; auto: max for accuracy, min for loss"
    )
    patience: int = Field(
        3, ge=0, description="epochs without a better value of monitor before training stops; 0 never stops early"
    )
    workers: int = Field(
        0, ge=0, description="Spark tasks that train together, each in a process of its own; 0 trains in the driver"
    )
    gpus_per_worker: Literal[0, 1] = Field(
        0, description="1 takes the GPU that Spark assigned to each worker's task; for more GPUs take more workers"
    )
    ports: str | None = Field(
        None,
        pattern=r"^\d{1,5}-\d{1,5}$",
        description="ports that workers may use among themselves, e.g. 40000-40100; null for any that is free",
    )
    deterministic: bool = Field(
        False, description="have TensorFlow repeat itself bit for bit on one machine; slower on a GPU"
    )
    resume: str | None = Field(
        None, description="id of a run to go on with, or auto: the newest unfinished run of the same settings"
    )
    max_restarts: int = Field(
        2, ge=0, description="times that training starts again from its last checkpoint after a worker was lost"
    )
    keep_last: int = Field(2, gt=0, description="checkpoints kept on the local disk; the MLflow run keeps them all")

    @property
    def best_direction(self) -> str:
        """`direction`, with auto resolved."""
        if self.direction != "auto":
            return self.direction
        return "min" if self.monitor.endswith("loss") else "max"

    @property
    def port_range(self) -> tuple[int, int] | None:
        """`ports` as (first, last)."""
        if self.ports is None:
            return None
        first, last = map(int, self.ports.split("-"))
        return first, last

    @field_validator("ports")
    @classmethod
    def _is_a_range(cls, ports: str | None) -> str | None:
        if ports is not None:
            first, last = map(int, ports.split("-"))
            if not 1024 <= first <= last <= 65535:
                raise ValueError("ports must be FIRST-LAST, between 1024 and 65535")
        return ports

    @model_validator(mode="after")
    def _gpus_need_workers(self) -> "FitSettings":
        if self.gpus_per_worker and not self.workers:
            raise ValueError("gpus_per_worker=1 needs workers of 1 or more: Spark assigns GPUs to its tasks")
        return self


class StoreSettings(Settings):
    """Where MLflow keeps runs and models."""

    uri: str | None = Field(
        None, description="MLflow tracking URI; else MLFLOW_TRACKING_URI, else SQLite in the working folder"
    )


class TrackingSettings(StoreSettings):
    """Where MLflow keeps runs and models, and under which experiment."""

    experiment: str = Field("sparkcnn", description="MLflow experiment, made where it does not exist")


class RegisterSettings(Settings):
    """What becomes of the trained model."""

    name: str | None = Field(
        None,
        pattern=r"^[^/:]+$",
        description="registered model that gets a new version; without it nothing is registered",
    )
    alias: str | None = Field(
        "champion", pattern=r"^[A-Za-z][\w-]*$", description="alias that the new version gets; null for none"
    )

    @field_validator("alias")
    @classmethod
    def _is_no_version(cls, alias: str | None) -> str | None:
        if alias is not None and re.fullmatch(r"latest|v\d+", alias, re.IGNORECASE):
            raise ValueError("latest, v1, v2 and so on are not aliases to MLflow; take another name")
        return alias


class TrainSettings(Settings):
    """Image set -> MLflow run, checkpoints, registered model."""

    data: DataSettings
    model: ModelSettings = ModelSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    train: FitSettings = FitSettings()
    tracking: TrackingSettings = TrackingSettings()
    register: RegisterSettings = RegisterSettings()


class ScoreInputSettings(Settings):
    """What is scored."""

    path: str | None = Field(None, description="image set, or what ingest reads; unused for mnist")
    format: Literal["image_set", SourceFormat] = Field(
        "image_set", description="image_set, or any format that ingest reads"
    )
    split: Literal["train", "val", "test", "all"] = Field(
        "test", description="split of an image set to score; other formats are scored whole"
    )


class PredictionsOutputSettings(Settings):
    """Where the predictions go."""

    path: str = Field(description="folder of the predictions, as a path or URI")
    overwrite: bool = Field(False, description="replace what is there; readers see the old until the new is whole")


class ScoringSettings(Settings):
    """How scoring runs."""

    max_failed_fraction: float = Field(
        0.05, ge=0, le=1, description="more rows without a prediction than this share end with exit status 3"
    )
    mode: Literal["all", "incremental", "stream"] = Field(
        "all",
        description="incremental adds the predictions of images that have none yet, by content, to those at "
        "output.path; stream those of files that have come into a folder since the run before",
    )
    rescore: bool = Field(
        False, description="incremental, stream: also score images that only other versions of the model have scored"
    )
    checkpoint: str | None = Field(
        None, description="stream: folder of Spark's checkpoint; by default output.path with -checkpoint behind it"
    )
    top_k: int = Field(0, ge=0, description="also give so many of the most probable classes a row; 0 is none")
    probabilities: bool = Field(False, description="also give the probability of every class")
    embedding: bool = Field(False, description="also give what the model's last layer with weights is given")


class ScoreSettings(Settings):
    """Images and a registered model -> predictions."""

    model: str = Field(description="models:/NAME@ALIAS, models:/NAME/VERSION or runs:/RUN_ID/model")
    input: ScoreInputSettings = ScoreInputSettings()
    output: PredictionsOutputSettings
    score: ScoringSettings = ScoringSettings()
    tracking: TrackingSettings = TrackingSettings()


class DemoSettings(Settings):
    """The whole pipeline: ingest, train and score, one after the other."""

    ingest: IngestSettings
    train: TrainSettings
    score: ScoreSettings
    min_test_accuracy: float = Field(
        0.985, ge=0, le=1, description="a test accuracy below this ends the demo with exit status 3"
    )


def flatten(settings: Settings) -> dict[str, Any]:
    """Give every setting under its dotted name, as MLflow logs them.

    >>> flatten(RegisterSettings(name="digits"))
    {'name': 'digits', 'alias': 'champion'}
    """
    return flatten_values(settings.model_dump(mode="json"))


def flatten_values(values: dict[str, Any]) -> dict[str, Any]:
    """Give every value of nested dictionaries under its dotted name.

    >>> flatten_values({"a": {"b": 1}, "c": 2})
    {'a.b': 1, 'c': 2}
    """
    return dict(_dotted(values))


def _dotted(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, dict) and value:
            pairs += _dotted(value, f"{prefix}{name}.")
        else:
            pairs.append((prefix + name, value))
    return pairs
