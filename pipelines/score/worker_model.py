"""The sealed model in a Python process of an executor: loaded once, for all tasks that the process runs.

These processes import this module and everything that it imports. So it must import neither MLflow nor TensorFlow: the
code of the sealed model imports TensorFlow when the first task asks for a prediction.
"""

import gc
import hashlib
import os
from pathlib import Path

from pyspark import SparkFiles, TaskContext
from pyspark.sql import SparkSession

from cnnlib.quiet import import_tensorflow_quietly
from cnnlib.sealed.frozen.predict import CARD_FILE
from cnnlib.sealed.frozen_interface import SealedClassifier
from cnnlib.sealed.seal import ARTIFACTS, open_sealed
from pipelines.spark.session import ship_folder


def ship_model(spark: SparkSession, folder: Path) -> str:
    """Send the folder of a model to every executor, which unpacks it once. Returns the name of its archive there."""
    # The name comes from the content. So a model that this session has already used is neither sent nor loaded again.
    card = (folder / ARTIFACTS / CARD_FILE).read_bytes()
    return ship_folder(spark, folder, f"sparkcnn-model-{hashlib.sha256(card).hexdigest()[:16]}")


_loaded: tuple[str, SealedClassifier] | None = None


def worker_classifier(archive: str) -> SealedClassifier:
    """Return the model of an archive of `ship_model`, and load it if this process has not. Call this in tasks only."""
    global _loaded
    if _loaded is None or _loaded[0] != archive:
        _loaded = None
        gc.unfreeze()
        gc.collect()
        _loaded = archive, load_in_task(archive)
        # PySpark collects garbage after every task. Without this, it would visit all objects of TensorFlow: 0.25 s.
        gc.freeze()
    return _loaded[1]


def load_in_task(archive: str) -> SealedClassifier:
    """Load the model of an archive of `ship_model`. Call this in tasks only."""
    context = TaskContext.get()
    # Use as many threads as Spark reserves CPUs for a task. More would compete with the other tasks of the machine.
    cpus = str(context.cpus()) if context else "1"
    os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = cpus
    import_tensorflow_quietly(in_task=True)
    return open_sealed(Path(SparkFiles.get(archive)))
