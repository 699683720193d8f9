"""The sealed model in a Python worker: loaded once, for all the tasks that it runs.

Workers import this module and all it imports, so neither MLflow nor TensorFlow may be among that: the sealed model's
own code imports TensorFlow when the first task asks for a prediction.
"""

import gc
import hashlib
import os
from pathlib import Path

from pyspark import SparkFiles, TaskContext
from pyspark.sql import SparkSession

from cnnlib.quiet import import_tensorflow_quietly
from cnnlib.sealed.frozen.predict import CARD_FILE, Classifier
from cnnlib.sealed.seal import ARTIFACTS, open_sealed
from pipelines.spark.session import ship_folder


def ship_model(spark: SparkSession, folder: Path) -> str:
    """Send a model's folder to every executor, which unpacks it once. Gives the name that it has there."""
    # Named by content: a model that this session has scored with before is there already, and loaded in its workers.
    card = (folder / ARTIFACTS / CARD_FILE).read_bytes()
    return ship_folder(spark, folder, f"sparkcnn-model-{hashlib.sha256(card).hexdigest()[:16]}")


_loaded: tuple[str, Classifier] | None = None


def worker_classifier(archive: str) -> Classifier:
    """Load the model that was shipped under this name, unless this worker has it already. Called in tasks only."""
    global _loaded
    if _loaded is None or _loaded[0] != archive:
        _loaded = None
        gc.unfreeze()
        gc.collect()
        _loaded = archive, load_in_task(archive)
        # PySpark collects garbage after every task, and would go through all of TensorFlow's objects: a quarter second.
        gc.freeze()
    return _loaded[1]


def load_in_task(archive: str) -> Classifier:
    """Load the model that was shipped under this name. Called in tasks only."""
    context = TaskContext.get()
    # As many threads as Spark counts for a task; more would fight with the other tasks of the machine.
    cpus = str(context.cpus()) if context else "1"
    os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = cpus
    import_tensorflow_quietly()
    return open_sealed(Path(SparkFiles.get(archive)))
