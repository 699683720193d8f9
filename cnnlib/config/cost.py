"""The settings of cost and models."""

from pydantic import Field, field_validator

from cnnlib.config.counts import parse_counts
from cnnlib.config.image_shape import ImageShapeDataSettings
from cnnlib.config.model import ModelSettings
from cnnlib.config.optimizer import OptimizerSettings
from cnnlib.config.settings import Settings


class CostImageSettings(Settings):
    """Size and number of classes of the images, if no image set is given. null takes the architecture's own."""

    height: int | None = Field(None, gt=0, description="pixels of an image")
    width: int | None = Field(None, gt=0, description="pixels of an image")
    channels: int | None = Field(None, ge=1, le=3, description="1 for grey or 3 for RGB")
    classes: int | None = Field(None, ge=2, description="number of classes")
    count: int | None = Field(None, gt=0, description="images per epoch; null takes the 1,281,167 of ImageNet")


class DeviceSettings(Settings):
    """The device that trains. The defaults are NVIDIA's figures for an A100 with 40 GB, without its tensor cores."""

    tflops: float = Field(19.5, gt=0, allow_inf_nan=False, description="10^12 floating point operations per second")
    bandwidth_gb: float = Field(
        1555.0, gt=0, allow_inf_nan=False, description="gigabytes per second between the device and its memory"
    )


class CostSettings(Settings):
    """Show the cost of a model: parameters, multiply-adds and memory per layer, and the memory and time of training."""

    model: ModelSettings = ModelSettings()
    data: ImageShapeDataSettings = ImageShapeDataSettings()
    image: CostImageSettings = CostImageSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    device: DeviceSettings = DeviceSettings()
    batch_sizes: str | int = Field("32,128,512", description="images per step, separated by commas")

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
    """List the architectures with their cost, and with --measure their speed on this machine."""

    measure: bool = Field(
        False, description="also measure the images per second of inference on this machine; takes minutes"
    )
    batch_size: int = Field(32, gt=0, description="images per batch when measuring")
