"""The settings of train."""

import re
import warnings
from typing import Literal

from pydantic import Field, field_validator, model_validator

from cnnlib.config.augmentation import AugmentSettings
from cnnlib.config.model import ModelSettings
from cnnlib.config.optimizer import OptimizerSettings
from cnnlib.config.settings import Settings
from cnnlib.config.tracking import TrackingSettings

# `register` is the section's name in the command line; the method it hides is one of Python's abstract classes.
warnings.filterwarnings("ignore", message=r'Field name "register" in "\w+Settings" shadows', category=UserWarning)


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
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of each label that is spread over all classes (Szegedy et al. 2015)"
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced has images of rare classes count for more, so that all classes count the same"
    )
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = Field(
        "float32",
        description="mixed computes in 16 bits, with weights in 32: for GPUs (Micikevicius et al. 2017)",
    )
    find_rate: bool = Field(
        False, description="sweep the learning rate from 1e-7 to 10 instead of training, and suggest one"
    )
    watch_layers: bool = Field(
        True, description="log each layer's dead units and gradient norm on a validation batch, after every epoch"
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

    @model_validator(mode="after")
    def _sweeps_anew(self) -> "FitSettings":
        if self.find_rate and self.resume is not None:
            raise ValueError("find_rate trains nothing that resume could go on with; leave out one of them")
        return self


class TransferSettings(Settings):
    """How a model is trained that begins with model.weights: first its new head, then more."""

    frozen_epochs: int = Field(1, ge=0, description="epochs in which the new head alone is trained")
    layers: int | None = Field(
        None,
        ge=0,
        description="how many of the last layers with weights are trained behind that, beside the head; batch "
        "normalisations are neither counted nor trained; null for all",
    )
    rate: float = Field(0.1, gt=0, le=1, description="what is left of the learning rate behind that")


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


class TrainingSections(Settings):
    """What the jobs that train, or prepare for it, have in common."""

    data: DataSettings
    model: ModelSettings = ModelSettings()
    augment: AugmentSettings = AugmentSettings()
    transfer: TransferSettings = TransferSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    train: FitSettings = FitSettings()
    tracking: TrackingSettings = TrackingSettings()

    def sections(self) -> dict[str, Settings]:
        """These sections by name, without what else a job has."""
        return {name: getattr(self, name) for name in TrainingSections.model_fields}

    @model_validator(mode="after")
    def _weights_know_the_class(self) -> "TrainingSections":
        if self.augment.mixes and self.train.class_weights != "none":
            raise ValueError("train.class_weights needs images of one class each; leave out augment.mixup and cutmix")
        return self


class TrainSettings(TrainingSections):
    """Image set -> MLflow run, checkpoints, registered model."""

    register: RegisterSettings = RegisterSettings()

    @property
    def has_soft_labels(self) -> bool:
        """Whether an image may be trained towards more than one class."""
        return bool(self.train.label_smoothing) or self.augment.mixes
