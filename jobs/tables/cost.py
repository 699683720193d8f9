"""The tables of cost and models."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.constrain import Constrain
from rich.table import Table
from rich.text import Text

from jobs.tables.layout import pairs_table, show

if TYPE_CHECKING:  # pipelines.cost imports TensorFlow
    from cnnlib.config import CostSettings
    from pipelines.cost import ArchitectureCost, ModelCost

_NOTES = (
    "multiply-adds: of convolutions, dense layers and LSTMs, for one image. memory: weights, gradients, the state of "
    "the optimizer, and the outputs that the backward pass needs again, in float32. It is a lower bound, because the "
    "libraries of the device need more. epoch: the shortest time by the roofline model (Williams, Waterman and "
    "Patterson 2009); the backward pass counts as twice the forward pass."
)
_NOTES_WIDTH = 120


def show_cost(cost: "ModelCost", settings: "CostSettings") -> None:
    """Print a row per layer, the totals, and the memory and time of training."""
    show(
        _layers_table(cost),
        _totals_table(cost),
        _trainings_table(cost, settings),
        Constrain(Text(_NOTES), _NOTES_WIDTH),
    )


def architectures_table(costs: "Sequence[ArchitectureCost]") -> Table:
    """Return a row per architecture."""
    table = Table(title="architectures, at their default input", title_justify="left")
    table.add_column("model.name", no_wrap=True)
    measured = any(cost.images_per_second for cost in costs)
    numbers = ["input", "classes", "parameters", "multiply-adds", "size: MB"]
    for heading in [*numbers, "images/s here"] if measured else numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("after", no_wrap=True)
    for cost in costs:
        row = [
            _shape(cost.image_shape),
            f"{cost.classes:,}",
            f"{cost.parameters:,}",
            _millions(cost.multiply_adds),
            f"{cost.size_bytes / 1e6:,.1f}",
        ]
        if measured:
            row.append(f"{cost.images_per_second:,.0f}")
        table.add_row(cost.name, *row, cost.source)
    return table


def _layers_table(cost: "ModelCost") -> Table:
    table = Table(title=f"layers of {cost.name}", title_justify="left")
    for heading, justify in (
        ("layer", "left"),
        ("kind", "left"),
        ("output", "right"),
        ("parameters", "right"),
        ("multiply-adds", "right"),
        ("activations: KB", "right"),
    ):
        table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for layer in cost.layers:
        table.add_row(
            layer.name,
            layer.kind,
            _shape(layer.output_shape),
            f"{layer.parameters:,}" if layer.parameters else "",
            _millions(layer.multiply_adds) if layer.multiply_adds else "",
            f"{layer.activation_bytes / 1e3:,.1f}" if layer.activation_bytes else "",
        )
    return table


def _totals_table(cost: "ModelCost") -> Table:
    table = pairs_table("totals")
    table.add_row("input", f"{_shape(cost.image_shape)}, {cost.classes:,} classes")
    table.add_row("parameters", f"{cost.parameters:,}, of which {cost.trainable:,} are trained")
    table.add_row("multiply-adds", f"{_millions(cost.multiply_adds)} per image")
    table.add_row("activations", f"{cost.activation_bytes / 1e6:,.1f} MB per image")
    return table


def _trainings_table(cost: "ModelCost", settings: "CostSettings") -> Table:
    device = f"{settings.device.tflops:g} TFLOP/s and {settings.device.bandwidth_gb:g} GB/s"
    title = f"training with {settings.optimizer.name}, {cost.images:,} images per epoch, on {device}"
    table = Table(title=title, title_justify="left")
    for heading in ("batch", "memory: MB", "epoch at least", "images/s at most"):
        table.add_column(heading, justify="right", no_wrap=True)
    for training in cost.trainings:
        table.add_row(
            f"{training.batch_size:,}",
            f"{training.memory_bytes / 1e6:,.0f}",
            _duration(training.epoch_seconds),
            f"{cost.images / training.epoch_seconds:,.0f}",
        )
    return table


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _millions(count: int) -> str:
    """Return a count of multiply-adds in millions, as publications give it.

    >>> _millions(101_616_768), _millions(480_000), _millions(15_470_314_496)
    ('101.6 M', '0.480 M', '15,470 M')
    """
    millions = count / 1e6
    return f"{millions:,.0f} M" if millions >= 1000 else f"{millions:.1f} M" if millions >= 10 else f"{millions:.3f} M"


def _duration(seconds: float) -> str:
    """Return a time in a suitable unit.

    >>> _duration(0.25), _duration(90), _duration(7200)
    ('0.25 s', '1.5 min', '2.0 h')
    """
    if seconds < 60:
        return f"{seconds:.2f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
