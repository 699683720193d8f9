"""How fast training is in the driver and on workers, against plain Keras and against the machine itself.

    python -m benchmarks.training [--rounds 3] [--rows 40000] [--epochs 5] [--models LeNet]

Each way trains the same model on the same MNIST images with batches of 128 a worker, in processes of its own, once a
round; the rounds are interleaved, for these machines are shared and noisy. Workers are Spark executors of one core
each, held to that core. A figure is the median over the rounds of the median epoch, the first epoch (tracing) left out.

The ceiling is what the machine gives: two plain Keras processes that know nothing of each other, one core each, over
twice one of them alone. No way of training together can be above it.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
from pyspark.sql import SparkSession
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.idx import idx_bytes
from cnnlib.config import IngestSettings, TrainSettings
from cnnlib.image_set.contract import ImageSet, open_image_set
from cnnlib.mnist import read_mnist_file
from cnnlib.quiet import import_tensorflow_quietly
from cnnlib.sources.idx import parse_idx
from pipelines.spark.session import spark_session

BATCH = 128
# LeNet's 2.3 M multiply-adds for 0.43 M parameters are 5.3 a parameter; the second has 3.7 M for 0.069 M, 55.
MODELS: dict[str, dict[str, object]] = {
    "LeNet": {},
    "10 x arithmetic a parameter": {"filters": [32, 64], "units": [16]},
}
WAYS = {
    "plain": "plain Keras fit on arrays, one core",
    "twice": "two such at once, together",
    "driver": "in the driver, all cores",
    "1 worker": "1 worker of one core",
    "2 workers": "2 workers of one core each",
}

Rates = dict[tuple[str, str], list[float]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, or with --measure be what is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.measure:
        way, path, options = given.measure
        print(json.dumps(measure(way, path, json.loads(options), given.epochs)))
        return
    with tempfile.TemporaryDirectory(prefix="sparkcnn-benchmark-") as folder:
        path = write_set(Path(folder), given.rows)
        rates: Rates = defaultdict(list)
        jobs = [(model, way) for _ in range(given.rounds) for model in given.models for way in given.ways]
        for model, way in track(jobs, "training", console=Console(stderr=True)):
            rates[model, way].append(in_process_of_its_own(way, path, MODELS[model], given.epochs))
    Console(width=120).print(table_of(rates, given.models, given.ways))


def write_set(folder: Path, rows: int) -> str:
    """An image set of the first MNIST images, in row groups of a thousand."""
    from pipelines.ingest.flow import ingest

    for stem, count in (("train", rows), ("t10k", 100)):
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
            array = parse_idx(read_mnist_file(f"{stem}-{kind}.gz"), kind)[:count]
            (folder / f"{stem}-{kind}").write_bytes(idx_bytes(array))
    spark = spark_session("sparkcnn benchmark")
    ingest(
        spark,
        IngestSettings(
            source={"format": "idx", "path": str(folder)},
            split={"val_fraction": 0.02},
            output={"path": str(folder / "set"), "row_group_mb": 0.75},
        ),
    )
    spark.stop()
    return str(folder / "set")


def in_process_of_its_own(way: str, path: str, options: dict[str, object], epochs: int) -> float:
    """Images/s of one way, measured in fresh processes: TensorFlow's threads are set once a process."""
    command = [sys.executable, "-m", "benchmarks.training", "--epochs", str(epochs), "--measure"]
    with tempfile.TemporaryFile("w+") as told:
        processes = [
            subprocess.Popen(
                [*command, "plain" if way == "twice" else way, path, json.dumps(options)],
                stdout=subprocess.PIPE,
                stderr=told,
                text=True,
                preexec_fn=(lambda core=core: os.sched_setaffinity(0, {core})) if way in ("plain", "twice") else None,
            )
            for core in range(2 if way == "twice" else 1)
        ]
        outputs = [process.communicate()[0] for process in processes]
        if any(process.returncode for process in processes):
            told.seek(0)
            raise RuntimeError(f"{way} failed:\n{told.read()}")
    return sum(json.loads(output.splitlines()[-1]) for output in outputs)


def measure(way: str, path: str, options: dict[str, object], epochs: int) -> float:
    """Images/s of one way, here and now."""
    import_tensorflow_quietly()
    if way == "plain":
        return plain(open_image_set(path), options, epochs)
    from pipelines.train.flow import train

    workers = {"driver": 0, "1 worker": 1, "2 workers": 2}[way]
    with tempfile.TemporaryDirectory(prefix="sparkcnn-benchmark-") as folder:
        settings = TrainSettings(
            data={"path": path},
            model={"options": options},
            train={"epochs": epochs, "worker_batch_size": BATCH, "workers": workers, "patience": 0},
            tracking={"uri": f"sqlite:///{folder}/mlflow.db"},
        )
        spark = one_core_executors() if workers else spark_session("sparkcnn benchmark")
        history = train(spark, settings).history
        spark.stop()
    return statistics.median(history["images_per_second"][1:])


def one_core_executors() -> SparkSession:
    """A session on two executors of one core, each held to a core of its own."""
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    spark = spark_session("sparkcnn benchmark", **{"spark.master": "local-cluster[2,1,1024]"})
    spark.range(1).count()  # the executors are there
    executors = [
        process
        for process in psutil.Process().children(recursive=True)
        # A zombie, which scripts that start others leave for moments, has no command line.
        if process.status() != psutil.STATUS_ZOMBIE and "CoarseGrainedExecutorBackend" in " ".join(process.cmdline())
    ]
    for core, executor in enumerate(executors):
        # What they start later is held to the same core.
        for thread in executor.threads():
            os.sched_setaffinity(thread.id, {core})
    return spark


def plain(image_set: ImageSet, options: dict[str, object], epochs: int) -> float:
    """Keras' own `fit` on arrays in memory, on one thread.

    From an epoch's first step to its last: between epochs, Keras' data set for arrays did nothing for half a second.
    """
    import keras
    import tensorflow as tf

    from cnnlib.feed.blocks import read_split
    from cnnlib.training.compiled_model import compile_model, new_model

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    images, labels = (np.concatenate(parts) for parts in zip(*read_split(image_set, "train"), strict=True))
    settings = TrainSettings(data={"path": image_set.folder.uri}, model={"options": options})
    ends: dict[int, float] = {}
    seconds: list[float] = []

    def note_step(step: int, logs: object) -> None:
        ends[step] = time.monotonic()
        if step == steps - 1:
            seconds.append(ends[step] - ends[0])

    steps = math.ceil(len(labels) / BATCH)
    compile_model(new_model(image_set, settings), settings).fit(
        images,
        labels,
        batch_size=BATCH,
        epochs=epochs,
        callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=note_step)],
        verbose=0,
    )
    return (len(labels) - BATCH) / statistics.median(seconds[1:])


def table_of(rates: Rates, models: Sequence[str], ways: Sequence[str]) -> Table:
    """The medians, and what they are of one another."""
    table = Table(title="training, images/s: median (lowest to highest)", title_justify="left")
    table.add_column("")
    for model in models:
        table.add_column(model, justify="right")
    middle = {key: statistics.median(values) for key, values in rates.items()}
    for way in ways:
        spans = [(middle[model, way], min(rates[model, way]), max(rates[model, way])) for model in models]
        table.add_row(WAYS[way], *(f"{mid:,.0f} ({low:,.0f} to {high:,.0f})" for mid, low, high in spans))
    table.add_section()
    for title, over, under, share in (
        ("scaling efficiency: 2 workers over twice 1 worker", "2 workers", "1 worker", 2),
        ("the machine's ceiling: two at once over twice one", "twice", "plain", 2),
        ("1 worker over plain Keras", "1 worker", "plain", 1),
        ("driver over plain Keras", "driver", "plain", 1),
    ):
        if {over, under} <= set(ways):
            ratios = (middle[model, over] / middle[model, under] / share for model in models)
            table.add_row(title, *(f"{ratio:.2f}" for ratio in ratios))
    return table


if __name__ == "__main__":
    main()
