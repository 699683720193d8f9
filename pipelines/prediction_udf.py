"""The pandas UDF that scores, and what it needs in a Python worker.

Workers import this module and all it imports, so neither MLflow nor TensorFlow may be among that: the sealed model's
own code imports TensorFlow when the first task asks for a prediction.
"""

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from pyspark import SparkFiles, TaskContext
from pyspark.sql import Column
from pyspark.sql import functions as F

from cnnlib.predict import ERROR, LABEL, LABEL_NAME, PROBABILITY, Classifier
from cnnlib.quiet import import_tensorflow_quietly
from cnnlib.sealed import open_sealed

# (height, width, channels)
Shape = tuple[int, int, int]

PREDICTION_TYPE = f"{LABEL} int, {LABEL_NAME} string, {PROBABILITY} double, {ERROR} string"


def prediction_udf(archive: str, raw_shape: Shape | None) -> Callable[[Column], Column]:
    """Give the UDF: content (encoded files, or arrays' bytes of `raw_shape`) -> struct of PREDICTION_TYPE.

    `archive` is the name of the sealed model among the files that Spark has shipped to its executors.
    """

    def predict(batches: Iterator[pd.Series]) -> Iterator[pd.DataFrame]:
        classifier = worker_classifier(archive)
        for contents in batches:
            images = [_as_array(content, raw_shape) for content in contents] if raw_shape else contents.tolist()
            yield classifier.predict_images(images)[[LABEL, LABEL_NAME, PROBABILITY, ERROR]]

    # PySpark reads the iterator form off the type hints above; its own stubs do not know it for structs.
    return F.pandas_udf(predict, PREDICTION_TYPE)  # type: ignore[call-overload]


@functools.lru_cache(maxsize=1)
def worker_classifier(archive: str) -> Classifier:
    """Load the shipped model: once a Python worker, for all the tasks that it runs. Called in tasks only."""
    context = TaskContext.get()
    # As many threads as Spark counts for a task; more would fight with the other tasks of the machine.
    cpus = str(context.cpus()) if context else "1"
    os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = cpus
    import_tensorflow_quietly()
    return open_sealed(Path(SparkFiles.get(archive)))


def _as_array(content: bytes | None, shape: Shape) -> np.ndarray | None:
    return None if content is None else np.frombuffer(content, np.uint8).reshape(shape)
