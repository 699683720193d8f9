"""The settings of plan."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from cnnlib.config.counts import parse_counts
from cnnlib.config.image_shape import ImageShapeDataSettings
from cnnlib.config.model import ModelSettings
from cnnlib.config.settings import Settings
from cnnlib.config.tracking import StoreSettings


class PlanImageSettings(Settings):
    """Size and number of classes of the images, if no image set is given. The defaults are those of MNIST."""

    height: int = Field(28, gt=0, description="pixels of an image")
    width: int = Field(28, gt=0, description="pixels of an image")
    channels: Literal[1, 3] = Field(1, description="1 for grey or 3 for RGB")
    classes: int = Field(10, ge=2, description="number of classes")


class NetworkSettings(Settings):
    """The network between the workers. The defaults are those of 10 Gbit/s Ethernet."""

    latency_us: float = Field(50.0, ge=0, allow_inf_nan=False, description="microseconds from one worker to another")
    bandwidth_gbit: float = Field(
        10.0, gt=0, allow_inf_nan=False, description="gigabits per second that a worker sends and receives, each way"
    )


class PlanSettings(Settings):
    """Predict how efficient many workers are, from the time of a step, the size of the model and the network."""

    workers: str | int = Field("16,64,256", description="numbers of workers, separated by commas")
    run: str | None = Field(
        None,
        description="id of an MLflow run that one worker trained; plan takes its model, image set, batch size and step "
        "time",
    )
    step_seconds: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="seconds that one worker takes for a step; null takes them from run, or measures them here",
    )
    measured_steps: int = Field(
        20, gt=0, description="steps to measure, after a few that warm up; their median is the step time"
    )
    worker_batch_size: int = Field(128, gt=0, description="images per step on one worker")
    model: ModelSettings = ModelSettings()
    data: ImageShapeDataSettings = ImageShapeDataSettings()
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
