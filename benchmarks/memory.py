"""Compare the memory that `sparkcnn cost` estimates for a training step with the memory that a step really takes.

    python -m benchmarks.memory [--models lenet resnet18 ...] [--batches 32 128]

Each pair of model and batch size has its own process. The process trains some steps on random images of the model's
default shape. The measured figure is its largest resident set, as the kernel counts it, minus the resident set before
the model was built. It includes the memory that TensorFlow itself needs (graphs, scratch memory of convolutions). The
estimate leaves this out.

The last column is the memory of one more image in the batch, computed from the two batch sizes. It has no graphs in it.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.processes import run_command
from cnnlib.config import OptimizerSettings
from cnnlib.cost.layers import layer_costs, weightless
from cnnlib.cost.training import optimizer_bytes, training_bytes
from cnnlib.models import ARCHITECTURES, build_model
from cnnlib.quiet import import_tensorflow_quietly

MODELS = ("lenet", "alexnet", "vgg11", "resnet18", "resnet50", "densenet121", "mobilenet_v2")
BATCHES = (8, 32)
STEPS = 3
CLASSES = 10


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all models, or with --measure only one, in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(ARCHITECTURES), default=MODELS)
    parser.add_argument("--batches", nargs=2, type=int, default=BATCHES)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    import_tensorflow_quietly()
    if options.measure:
        name, batch = options.measure
        print(measured_bytes(name, int(batch)))
        return
    jobs = [(name, batch) for name in options.models for batch in options.batches]
    console = Console(width=120)
    measured = {}
    for name, batch in track(jobs, "training", console=Console(stderr=True)):
        command = [sys.executable, "-m", "benchmarks.memory", "--measure", name, str(batch)]
        measured[name, batch] = int(run_command(command).output)
    console.print(table_of(measured, options.models, options.batches))


def measured_bytes(name: str, batch: int) -> int:
    """Train some steps in this process, and return the peak of the memory that they took."""
    import keras

    keras.layers.Dense(1)(np.zeros((1, 1), np.float32))  # this starts TensorFlow
    images = np.random.default_rng(0).integers(0, 256, (batch, *ARCHITECTURES[name].default_shape), np.uint8)
    labels = np.arange(batch) % CLASSES
    before = resident_bytes("VmRSS")
    model = build_model(name, image_shape=images.shape[1:], classes=CLASSES)
    model.compile(keras.optimizers.Adam(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for _ in range(STEPS):
        model.train_on_batch(images, labels)
    return resident_bytes("VmHWM") - before


def resident_bytes(kind: str) -> int:
    """Return the resident set of this process: VmRSS is the current one, VmHWM the largest so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{kind}:"))


def estimated_bytes(name: str, batch: int) -> int:
    """Return the memory that `sparkcnn cost` estimates for the same step."""
    shape = ARCHITECTURES[name].default_shape
    with weightless():
        layers = layer_costs(build_model(name, image_shape=shape, classes=CLASSES))
    kept_by_optimizer = optimizer_bytes(sum(layer.trainable for layer in layers), OptimizerSettings(name="adam"))
    return training_bytes(layers, math.prod(shape), batch, kept_by_optimizer)


def table_of(measured: dict[tuple[str, int], int], models: Sequence[str], batches: Sequence[int]) -> Table:
    """Return a table of estimated and measured memory, in MB."""
    table = Table(title="memory of a training step, MB: estimated, measured, ratio", title_justify="left")
    table.add_column("")
    for batch in batches:
        table.add_column(f"batch of {batch}", justify="right")
    table.add_column("a further image", justify="right")
    few, many = batches
    for name in models:
        estimates = {batch: estimated_bytes(name, batch) for batch in batches}
        pairs: list[tuple[float, float]] = [(estimates[batch], measured[name, batch]) for batch in batches]
        rise = (estimates[many] - estimates[few], measured[name, many] - measured[name, few])
        pairs.append((rise[0] / (many - few), rise[1] / (many - few)))
        cells = [f"{estimate / 1e6:,.1f}, {actual / 1e6:,.1f}, {estimate / actual:.2f}" for estimate, actual in pairs]
        table.add_row(name, *cells)
    return table


if __name__ == "__main__":
    main()
