"""Compare the speed of training in the driver and on workers with plain Keras and with the machine's ceiling.

    python -m benchmarks.training [--rounds 3] [--rows 40000] [--epochs 5] [--models LeNet]

Each way trains the same model on the same MNIST images, with 128 images per batch and worker, in its own processes.
Each round runs every way once, because these machines are shared and noisy. Workers are Spark executors with one core
each, and each is bound to its own core. One round gives the speed of the median epoch. It leaves out the first epoch,
in which TensorFlow traces the model. A figure is the median of the rounds.

The ceiling is the limit of the machine: the speed of two independent plain Keras processes on one core each, divided by
twice the speed of one alone. No way of training together can exceed it.
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

from benchmarks.idx import write_first_digits
from cnnlib.config import IngestSettings, TrainSettings
from cnnlib.image_set.contract import ImageSet, open_image_set
from cnnlib.quiet import import_tensorflow_quietly
from pipelines.spark.session import spark_session

WORKER_BATCH_SIZE = 128
# LeNet has 2.3 M multiply-adds and 0.43 M parameters: 5.3 per parameter. The second has 3.7 M and 0.069 M: 55.
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
    """Measure all ways, or with --measure only one, in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        way, path, model_options = options.measure
        print(json.dumps(measure(way, path, json.loads(model_options), options.epochs)))
        return
    with tempfile.TemporaryDirectory(prefix="sparkcnn-benchmark-") as folder:
        path = write_set(Path(folder), options.rows)
        rates: Rates = defaultdict(list)
        jobs = [(model, way) for _ in range(options.rounds) for model in options.models for way in options.ways]
        for model, way in track(jobs, "training", console=Console(stderr=True)):
            rates[model, way].append(measure_in_new_processes(way, path, MODELS[model], options.epochs))
    Console(width=120).print(table_of(rates, options.models, options.ways))


def write_set(folder: Path, rows: int) -> str:
    """Write an image set of the first MNIST images, in row groups of a thousand, and return its path."""
    from pipelines.ingest.flow import ingest

    write_first_digits(folder, train=rows, test=100)
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


def measure_in_new_processes(way: str, path: str, options: dict[str, object], epochs: int) -> float:
    """Return the images/s of one way from new processes, because TensorFlow's threads are set once per process."""
    command = [sys.executable, "-m", "benchmarks.training", "--epochs", str(epochs), "--measure"]
    with tempfile.TemporaryFile("w+") as errors:
        processes = [
            subprocess.Popen(
                [*command, "plain" if way == "twice" else way, path, json.dumps(options)],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                preexec_fn=(lambda core=core: os.sched_setaffinity(0, {core})) if way in ("plain", "twice") else None,
            )
            for core in range(2 if way == "twice" else 1)
        ]
        outputs = [process.communicate()[0] for process in processes]
        if any(process.returncode for process in processes):
            errors.seek(0)
            raise RuntimeError(f"{way} failed:\n{errors.read()}")
    return sum(json.loads(output.splitlines()[-1]) for output in outputs)


def measure(way: str, path: str, options: dict[str, object], epochs: int) -> float:
    """Run one way in this process, and return its images/s."""
    import_tensorflow_quietly()
    if way == "plain":
        return plain(open_image_set(path), options, epochs)
    from pipelines.train.flow import train

    workers = {"driver": 0, "1 worker": 1, "2 workers": 2}[way]
    with tempfile.TemporaryDirectory(prefix="sparkcnn-benchmark-") as folder:
        settings = TrainSettings(
            data={"path": path},
            model={"options": options},
            train={"epochs": epochs, "worker_batch_size": WORKER_BATCH_SIZE, "workers": workers, "patience": 0},
            tracking={"uri": f"sqlite:///{folder}/mlflow.db"},
        )
        spark = one_core_executors() if workers else spark_session("sparkcnn benchmark")
        history = train(spark, settings).history
        spark.stop()
    return statistics.median(history["images_per_second"][1:])


def one_core_executors() -> SparkSession:
    """Start a session with two executors of one core, each bound to its own core."""
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    spark = spark_session("sparkcnn benchmark", **{"spark.master": "local-cluster[2,1,1024]"})
    spark.range(1).count()  # it returns when the executors have started
    executors = [
        process
        for process in psutil.Process().children(recursive=True)
        # Scripts that start others leave zombies for a moment, and a zombie has no command line.
        if process.status() != psutil.STATUS_ZOMBIE and "CoarseGrainedExecutorBackend" in " ".join(process.cmdline())
    ]
    for core, executor in enumerate(executors):
        # Processes and threads that they start later inherit the core.
        for thread in executor.threads():
            os.sched_setaffinity(thread.id, {core})
    return spark


def plain(image_set: ImageSet, options: dict[str, object], epochs: int) -> float:
    """Return the images/s of Keras' own `fit` on arrays in memory, on one thread.

    The time of an epoch is from the end of its first step to the end of its last step. This leaves out the pause
    between epochs, in which Keras' data set for arrays did nothing for half a second.
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

    steps = math.ceil(len(labels) / WORKER_BATCH_SIZE)
    compile_model(new_model(image_set, settings), settings).fit(
        images,
        labels,
        batch_size=WORKER_BATCH_SIZE,
        epochs=epochs,
        callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=note_step)],
        verbose=0,
    )
    return (len(labels) - WORKER_BATCH_SIZE) / statistics.median(seconds[1:])


def table_of(rates: Rates, models: Sequence[str], ways: Sequence[str]) -> Table:
    """Return a table of the medians and their ratios."""
    table = Table(title="training, images/s: median (lowest to highest)", title_justify="left")
    table.add_column("")
    for model in models:
        table.add_column(model, justify="right")
    medians = {key: statistics.median(values) for key, values in rates.items()}
    for way in ways:
        spans = [(medians[model, way], min(rates[model, way]), max(rates[model, way])) for model in models]
        table.add_row(WAYS[way], *(f"{median:,.0f} ({low:,.0f} to {high:,.0f})" for median, low, high in spans))
    table.add_section()
    for title, way, reference, times in (
        ("scaling efficiency: 2 workers over twice 1 worker", "2 workers", "1 worker", 2),
        ("the machine's ceiling: two at once over twice one", "twice", "plain", 2),
        ("1 worker over plain Keras", "1 worker", "plain", 1),
        ("driver over plain Keras", "driver", "plain", 1),
    ):
        if {way, reference} <= set(ways):
            ratios = (medians[model, way] / medians[model, reference] / times for model in models)
            table.add_row(title, *(f"{ratio:.2f}" for ratio in ratios))
    return table


if __name__ == "__main__":
    main()
