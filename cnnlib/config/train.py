"""The settings of train."""

import warnings
from typing import Literal

from pydantic import Field, field_validator, model_validator

from cnnlib.config.augmentation import AugmentSettings
from cnnlib.config.model import ModelSettings
from cnnlib.config.optimizer import OptimizerSettings
from cnnlib.config.registered_names import ALIAS, MODEL_NAME, refuse_version_as_alias
from cnnlib.config.settings import MAY_DIFFER_ON_RESUME, NOT_LOGGED, SAME_IN_ALL_TRAININGS, Settings
from cnnlib.config.tracking import TrackingSettings

# The command line has a section `register`. It hides a method of the same name that pydantic inherits from ABCMeta.
warnings.filterwarnings("ignore", message=r'Field name "register" in "\w+Settings" shadows', category=UserWarning)


class DataSettings(Settings):
    """The images to train on, and how they are read."""

    path: str = Field(json_schema_extra=SAME_IN_ALL_TRAININGS, description="an image set that ingest wrote")
    shuffle_mb: float = Field(
        128.0,
        gt=0,
        allow_inf_nan=False,
        description="megabytes of stored images among which single images are shuffled, after the row groups have "
        "been shuffled; each worker uses up to twice this memory",
    )
    timeout_s: float = Field(
        120.0, gt=0, allow_inf_nan=False, description="seconds without data after which training ends with an error"
    )


class FitSettings(Settings):
    """How long and how training runs."""

    epochs: int = Field(3, gt=0, description="largest number of passes over the train split")
    worker_batch_size: int = Field(128, gt=0, description="images per step on one worker")
    seed: int = Field(
        0,
        ge=0,
        lt=2**32,
        json_schema_extra=SAME_IN_ALL_TRAININGS,
        description="random seed of the first weights and of the order of images",
    )
    monitor: Literal["val_accuracy", "val_loss", "accuracy", "loss"] = Field(
        "val_accuracy",
        json_schema_extra=SAME_IN_ALL_TRAININGS,
        description="metric that chooses the best epoch, and that patience waits for",
    )
    direction: Literal["auto", "max", "min"] = Field(
        "auto",
        json_schema_extra=SAME_IN_ALL_TRAININGS,
        description="whether the highest or the lowest value of monitor is best; auto takes max for accuracy and min "
        "for loss",
    )
    patience: int = Field(
        3, ge=0, description="epochs without a better value of monitor before training stops; 0 never stops early"
    )
    workers: int = Field(
        0, ge=0, description="number of workers: Spark tasks that train together; 0 trains in the driver"
    )
    gpus_per_worker: Literal[0, 1] = Field(
        0, description="1 uses the GPU that Spark assigned to each worker's task; for more GPUs, take more workers"
    )
    ports: str | None = Field(
        None,
        pattern=r"^\d{1,5}-\d{1,5}$",
        description="ports for the connections between workers, e.g. 40000-40100; null takes any free port",
    )
    deterministic: bool = Field(
        False,
        json_schema_extra=SAME_IN_ALL_TRAININGS,
        description="make TensorFlow give bit for bit the same results each time on one machine; slower on a GPU",
    )
    resume: str | None = Field(
        None,
        json_schema_extra=MAY_DIFFER_ON_RESUME | SAME_IN_ALL_TRAININGS | NOT_LOGGED,
        description="id of a run to resume, or auto: the newest unfinished run with the same settings",
    )
    max_restarts: int = Field(
        2,
        ge=0,
        json_schema_extra=MAY_DIFFER_ON_RESUME,
        description="how often training starts again from its last checkpoint after it lost a worker",
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="fraction of each label that is spread over all classes (Szegedy et al. 2015)"
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced gives images of rare classes a larger weight, so that all classes count the same"
    )
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = Field(
        "float32",
        description="the mixed kinds compute with 16 bits and keep the weights in 32 bits, for GPUs (Micikevicius et "
        "al. 2017)",
    )
    find_rate: bool = Field(
        False,
        json_schema_extra=SAME_IN_ALL_TRAININGS,
        description="do not train; try learning rates from 1e-7 to 10 and suggest one",
    )
    watch_layers: bool = Field(
        True, description="after every epoch, log the dead units and the gradient norm of each layer on a val batch"
    )
    keep_last: int = Field(
        2,
        gt=0,
        json_schema_extra=MAY_DIFFER_ON_RESUME,
        description="checkpoints to keep on the local disk; the MLflow run keeps all of them",
    )

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
            raise ValueError("gpus_per_worker=1 needs workers of 1 or more, because Spark assigns GPUs to its tasks")
        return self

    @model_validator(mode="after")
    def _sweep_has_nothing_to_resume(self) -> "FitSettings":
        if self.find_rate and self.resume is not None:
            raise ValueError("find_rate does not train, so resume has nothing to continue; leave out one of them")
        return self


class TransferSettings(Settings):
    """How a model with model.weights is trained: first only its new head, then more layers."""

    frozen_epochs: int = Field(1, ge=0, description="number of first epochs that train only the new head")
    layers: int | None = Field(
        None,
        ge=0,
        description="number of last layers with weights that the later epochs train with the head; batch "
        "normalisations are not counted and never trained; null trains all other layers",
    )
    rate: float = Field(0.1, gt=0, le=1, description="factor on the learning rate in the later epochs")


class RegisterSettings(Settings):
    """The registered model that gets the trained model as a new version."""

    name: str | None = Field(
        None,
        pattern=MODEL_NAME,
        json_schema_extra=MAY_DIFFER_ON_RESUME | SAME_IN_ALL_TRAININGS,
        description="name of the registered model; null registers nothing",
    )
    alias: str | None = Field(
        "champion",
        pattern=ALIAS,
        json_schema_extra=MAY_DIFFER_ON_RESUME | SAME_IN_ALL_TRAININGS,
        description="alias that the new version gets; null gives it none",
    )

    _is_no_version = field_validator("alias")(refuse_version_as_alias)


class TrainingSections(Settings):
    """The sections of every job that trains or checks a training."""

    data: DataSettings
    model: ModelSettings = ModelSettings()
    augment: AugmentSettings = AugmentSettings()
    transfer: TransferSettings = TransferSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    train: FitSettings = FitSettings()
    tracking: TrackingSettings = TrackingSettings()

    def sections(self) -> dict[str, Settings]:
        """Return these shared sections by name, without the job's own sections."""
        return {name: getattr(self, name) for name in TrainingSections.model_fields}

    @model_validator(mode="after")
    def _weights_know_the_class(self) -> "TrainingSections":
        if self.augment.mixes and self.train.class_weights != "none":
            raise ValueError("train.class_weights needs images of one class each; leave out augment.mixup and cutmix")
        return self


class TrainSettings(TrainingSections):
    """Train a CNN on an image set, track it in MLflow, and register the best epoch."""

    register: RegisterSettings = RegisterSettings()

    @property
    def has_soft_labels(self) -> bool:
        """Whether an image may be trained towards more than one class."""
        return bool(self.train.label_smoothing) or self.augment.mixes
