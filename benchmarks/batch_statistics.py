"""Compare the accuracy after short trainings with Keras' averages of batch normalisation and with estimated ones.

    python -m benchmarks.batch_statistics [--models resnet18 mobilenet …] [--images 2216] [--epochs 6]

Each architecture with batch normalisation is trained on the first MNIST images, at 32 x 32 pixels or its smallest size.
About 1,216 of 2,216 images are for training, so an epoch has 19 steps of 64 images, and 6 epochs have 114. Each
architecture is trained twice from the same weights and on the same batches: with Keras' momentum and averages, and as
sparkcnn does.

- `training mode` is the accuracy on training images with the statistics of each batch, so no averages take part in it.
- `epoch` is the seconds of the median epoch with the estimate, over those without. The first epoch is left out.
"""

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.idx import write_first_digits
from cnnlib.config import IngestSettings, TrainSettings
from cnnlib.image_set.contract import ImageSet
from cnnlib.models import ARCHITECTURES
from cnnlib.quiet import import_tensorflow_quietly
from cnnlib.training.checkpoints import History

BATCH_SIZE = 64
SMALLEST_SIDE = 32
TEST_IMAGES = 10


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    parser.add_argument("--images", type=int, default=2216)
    parser.add_argument("--epochs", type=int, default=6)
    options = parser.parse_args(arguments)
    import_tensorflow_quietly()
    table = Table(title=f"accuracy after {options.epochs} epochs", title_justify="left")
    for name in ("", "steps", "Keras' averages", "estimated", "training mode", "epoch"):
        table.add_column(name, justify="left" if name == "" else "right")
    with tempfile.TemporaryDirectory(prefix="sparkcnn-benchmark-") as folder:
        sides = sorted({side_of(name) for name in options.models})
        sets = dict(zip(sides, write_sets(Path(folder), options.images, sides), strict=True))
        for name in track(options.models, "training", console=Console(stderr=True)):
            add_row(table, name, sets[side_of(name)], options.epochs)
    Console(width=120).print(table)


def side_of(name: str) -> int:
    """Return the side of the images of an architecture."""
    return max(ARCHITECTURES[name].smallest_side, SMALLEST_SIDE)


def write_sets(folder: Path, images: int, sides: Sequence[int]) -> list[ImageSet]:
    """Write an image set of the first MNIST images for each side."""
    from pipelines.ingest import ingest
    from pipelines.spark import spark_session

    write_first_digits(folder, train=images, test=TEST_IMAGES)
    spark = spark_session("sparkcnn benchmark")
    settings = [
        IngestSettings(
            source={"format": "idx", "path": str(folder)},
            image={"height": side, "width": side},
            split={"val_fraction": 0.45},
            output={"path": str(folder / str(side)), "row_group_mb": 0.25},
        )
        for side in sides
    ]
    found = [ingest(spark, one) for one in settings]
    spark.stop()
    return found


def add_row(table: Table, name: str, image_set: ImageSet, epochs: int) -> None:
    """Train an architecture in both ways, and add a row. Without batch normalisation there is nothing to compare."""
    from cnnlib.training.batch_statistics import INFERENCE_MODE, TRAINING_MODE
    from cnnlib.training.callbacks import EPOCH_SECONDS

    estimated = trained(name, image_set, epochs, estimate=True)
    if INFERENCE_MODE not in estimated:
        return
    plain = trained(name, image_set, epochs, estimate=False)
    seconds = [statistics.median(history[EPOCH_SECONDS][1:]) for history in (estimated, plain)]
    accuracies = [plain["val_accuracy"], estimated["val_accuracy"], estimated[TRAINING_MODE]]
    steps = epochs * -(-image_set.split("train").rows // BATCH_SIZE)
    shown = [f"{values[-1]:.3f}" for values in accuracies]
    table.add_row(name, str(steps), *shown, f"{seconds[0] / seconds[1]:.2f}")


def trained(name: str, image_set: ImageSet, epochs: int, *, estimate: bool) -> History:
    """Return the history of a training with our averages, or with those of Keras."""
    import keras

    from cnnlib.training import batch_statistics
    from cnnlib.training.fit import fit_model

    settings = TrainSettings(
        data={"path": image_set.folder.uri},
        model={"name": name},
        train={"epochs": epochs, "worker_batch_size": BATCH_SIZE, "patience": 0, "watch_layers": False},
    )
    with ExitStack() as stack:
        if not estimate:
            stack.enter_context(patch.object(batch_statistics.BatchStatistics, "on_test_begin"))
            stack.enter_context(patch("cnnlib.training.fit.shorten_memory"))
        _, history = fit_model(
            image_set, settings, on_epoch=lambda model, state: None, on_step=lambda done, total, note: None
        )
    keras.backend.clear_session()
    return history


if __name__ == "__main__":
    main()
