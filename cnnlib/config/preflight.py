"""The settings of the jobs that come before a training: doctor and plan."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from cnnlib.config.counts import parse_counts
from cnnlib.config.model import ModelSettings
from cnnlib.config.settings import Settings
from cnnlib.config.tracking import StoreSettings
from cnnlib.config.train import DataSettings, RegisterSettings, TrainingSections


class DoctorDataSettings(DataSettings):
    """What would be trained on."""

    path: str | None = Field(None, description="an image set that ingest published")  # type: ignore[assignment]


class DoctorOutputSettings(Settings):
    """Where ingest or score would write."""

    path: str | None = Field(None, description="folder to try writing to, from here and from Spark's tasks")


class DoctorSettings(TrainingSections):
    """train's settings, none of them required, and an output path -> what is there, what is wrong, what to do."""

    data: DoctorDataSettings = DoctorDataSettings()
    register: RegisterSettings = RegisterSettings()
    output: DoctorOutputSettings = DoctorOutputSettings()
    timeout_s: float = Field(
        60.0, gt=0, allow_inf_nan=False, description="seconds after which a check that has not ended is a problem"
    )


class PlanDataSettings(Settings):
    """The images that would be trained on."""

    path: str | None = Field(
        None, description="image set that tells their size and number of classes; else image tells them"
    )


class PlanImageSettings(Settings):
    """Their size and number of classes, where no image set tells them. The defaults are MNIST's."""

    height: int = Field(28, gt=0, description="pixels of an image")
    width: int = Field(28, gt=0, description="pixels of an image")
    channels: Literal[1, 3] = Field(1, description="1 grey or 3 RGB")
    classes: int = Field(10, ge=2, description="number of classes")


class NetworkSettings(Settings):
    """What the workers' messages travel through. The defaults are those of a 10 Gbit/s Ethernet."""

    latency_us: float = Field(50.0, ge=0, allow_inf_nan=False, description="microseconds from one worker to another")
    bandwidth_gbit: float = Field(
        10.0, gt=0, allow_inf_nan=False, description="gigabits a second out of a worker, and as many into it"
    )


class PlanSettings(Settings):
    """A step's time, a model and a network -> the efficiency to expect of many workers."""

    workers: str | int = Field("16,64,256", description="numbers of workers, with commas between them")
    run: str | None = Field(
        None, description="id of a training's MLflow run, by one worker: its model, image set, batch and step are taken"
    )
    step_seconds: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="seconds a step of one worker; without it, and without run, measured here",
    )
    measured_steps: int = Field(20, gt=0, description="steps to measure, after a few to warm up; their median counts")
    worker_batch_size: int = Field(128, gt=0, description="images a step on one worker")
    model: ModelSettings = ModelSettings()
    data: PlanDataSettings = PlanDataSettings()
    image: PlanImageSettings = PlanImageSettings()
    network: NetworkSettings = NetworkSettings()
    tracking: StoreSettings = StoreSettings()

    @property
    def worker_counts(self) -> tuple[int, ...]:
        """`workers` as numbers, each once."""
        return parse_counts(self.workers)

    @field_validator("workers")
    @classmethod
    def _are_counts(cls, workers: str | int) -> str | int:
        parse_counts(workers)
        return workers

    @model_validator(mode="after")
    def _take_one_step_time(self) -> "PlanSettings":
        if self.run is not None and self.step_seconds is not None:
            raise ValueError("run and step_seconds both give the time of a step; take one of them")
        return self
