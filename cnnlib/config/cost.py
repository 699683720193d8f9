"""The settings of cost and models."""

from pydantic import Field, field_validator

from cnnlib.config.counts import parse_counts
from cnnlib.config.model import ModelSettings
from cnnlib.config.optimizer import OptimizerSettings
from cnnlib.config.preflight import PlanDataSettings
from cnnlib.config.settings import Settings


class CostImageSettings(Settings):
    """Size and number of classes of the images, where no image set tells them; by default the architecture's own."""

    height: int | None = Field(None, gt=0, description="pixels of an image")
    width: int | None = Field(None, gt=0, description="pixels of an image")
    channels: int | None = Field(None, ge=1, le=3, description="1 grey or 3 RGB")
    classes: int | None = Field(None, ge=2, description="number of classes")
    count: int | None = Field(None, gt=0, description="images of an epoch; by default ImageNet's 1,281,167")


class DeviceSettings(Settings):
    """What would train. The defaults are NVIDIA's figures for an A100 of 40 GB, without its tensor cores."""

    tflops: float = Field(19.5, gt=0, allow_inf_nan=False, description="10^12 floating point operations a second")
    bandwidth_gb: float = Field(1555.0, gt=0, allow_inf_nan=False, description="gigabytes a second to its memory")


class CostSettings(Settings):
    """An architecture and images -> what each layer costs, and a training."""

    model: ModelSettings = ModelSettings()
    data: PlanDataSettings = PlanDataSettings()
    image: CostImageSettings = CostImageSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    device: DeviceSettings = DeviceSettings()
    batch_sizes: str | int = Field("32,128,512", description="images a step, with commas between them")

    @property
    def batches(self) -> tuple[int, ...]:
        """`batch_sizes` as numbers, each once."""
        return parse_counts(self.batch_sizes)

    @field_validator("batch_sizes")
    @classmethod
    def _are_counts(cls, batch_sizes: str | int) -> str | int:
        parse_counts(batch_sizes)
        return batch_sizes


class ModelListSettings(Settings):
    """Every architecture -> what it costs, and how fast it is here."""

    measure: bool = Field(False, description="also measure images/s of inference on this machine; minutes")
    batch_size: int = Field(32, gt=0, description="images at a time where measured")
