"""The ways of scoring that benchmarks/scoring.py measures: `python -m benchmarks.scoring_ways WAY OPTIONS`.

Each way runs in its own process. OPTIONS is a JSON object, and the last printed line is one too: the number of
predictions, and the seconds of two runs. The session has started before both of them. In the first run (`cold`), there
are no Python workers and no loaded models yet. The second run is in the same session (`warm`). Every way except the
ceiling writes a prediction for every image to Parquet.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.ray_data import start_ray
from benchmarks.scoring_subjects import SEED, SUBJECTS, Subject
from cnnlib.image_set.contract import IMAGE, IMAGE_ID
from cnnlib.quiet import import_tensorflow_quietly

MODEL_NAME = "benchmark"
# Batch sizes with which each model is fast: thousands for LeNet, some dozens for ResNet-18.
BATCH = {"lenet": 2000, "resnet18": 128}


def prepare(subject: Subject, images: int) -> dict[str, Any]:
    """Make the images and an image set, and register an untrained model for it."""
    import_tensorflow_quietly()
    import keras

    from cnnlib.config import IngestSettings, StoreSettings
    from cnnlib.models import build_model
    from pipelines.ingest.flow import ingest
    from pipelines.spark.session import spark_session
    from pipelines.tracking.registry import TrainedOn, log_sealed_model
    from pipelines.tracking.store import connect

    spark = spark_session("sparkcnn benchmark")
    image_set = ingest(spark, IngestSettings.model_validate(subject.prepare(images)))
    spark.stop()
    keras.utils.set_random_seed(SEED)
    model = build_model(subject.model, image_shape=subject.spec.shape, classes=len(image_set.classes))
    import mlflow

    folder = subject.folder
    connect(StoreSettings(uri=f"sqlite:///{folder}/mlflow.db"))
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("benchmark", artifact_location=f"{folder}/artifacts"))
    with mlflow.start_run():
        log_sealed_model(model, TrainedOn.of(image_set), np.zeros(subject.spec.shape, np.uint8), register_as=MODEL_NAME)
    model.save(f"{folder}/model.keras")
    return {"images": images}


# --- the ways


def ceiling(subject: Subject) -> dict[str, Any]:
    """Predict in one process on all cores, from images in memory, and write nothing.

    At the same time, one further process per core decodes files.
    """
    import_tensorflow_quietly()
    stored = subject.stored()
    batch_size = BATCH[subject.model]
    batches = [stored[first : first + batch_size] for first in range(0, len(stored), batch_size)]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        if subject.model == "lenet":  # nothing to decode
            ready = [subject.pixels(batch) for batch in batches]
            arrays: Callable[[], Iterator[np.ndarray]] = lambda: iter(ready)  # noqa: E731
        else:
            list(pool.map(subject.pixels, batches[: 2 * os.cpu_count()]))
            arrays = lambda: pool.map(subject.pixels, batches)  # noqa: E731
        start = time.perf_counter()
        predict = compiled(subject.folder, subject.spec.shape)
        seconds = []
        for _ in range(2):
            count = sum(len(predict(pixels).numpy()) for pixels in arrays())
            seconds.append(time.perf_counter() - start)
            start = time.perf_counter()
    return {"images": count, "cold": seconds[0], "warm": seconds[1]}


def sparkcnn(subject: Subject) -> dict[str, Any]:
    """Run the scoring job of this project."""
    from cnnlib.config import ScoreSettings
    from pipelines.score.flow import score
    from pipelines.spark.session import spark_session

    spark = spark_session("sparkcnn benchmark")
    settings = ScoreSettings(
        model=f"models:/{MODEL_NAME}/1",
        input=subject.input(),
        output={"path": f"{subject.folder}/predictions", "overwrite": True},
        tracking={"uri": f"sqlite:///{subject.folder}/mlflow.db"},
    )
    return twice(lambda: score(spark, settings).counts["scored"])


def predict_batch_udf(subject: Subject) -> dict[str, Any]:
    """Run Spark's own function for predictions, with `model.predict` in it, as Spark's guide shows it."""
    from pyspark.ml.functions import predict_batch_udf as batch_udf
    from pyspark.sql.types import ArrayType, FloatType

    file, batch_size = f"{subject.folder}/model.keras", BATCH[subject.model]

    def make() -> Callable[[np.ndarray], np.ndarray]:
        import_tensorflow_quietly()
        import keras

        model = keras.saving.load_model(file, compile=False)

        def predict(images: np.ndarray) -> np.ndarray:
            logits = model.predict(subject.pixels(images), batch_size=batch_size, verbose=0)
            return keras.ops.convert_to_numpy(keras.ops.softmax(logits))

        return predict

    predict = batch_udf(make, return_type=ArrayType(FloatType()), batch_size=2 * batch_size)
    return with_spark(subject, lambda frame: frame.select(IMAGE_ID, predict(IMAGE).alias("probabilities")))


def spark_udf(subject: Subject) -> dict[str, Any]:
    """Run MLflow's UDF of the same registered model. It takes encoded files, so it gets the digits as PNG."""
    import mlflow
    from pyspark.sql import functions as F

    from cnnlib.config import StoreSettings
    from cnnlib.sealed.frozen.images import encode_png
    from pipelines.tracking.store import connect

    connect(StoreSettings(uri=f"sqlite:///{subject.folder}/mlflow.db"))

    def encode(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            images = [encode_png(image) for image in subject.pixels(batch.column(IMAGE).to_pylist())]
            yield pa.RecordBatch.from_pydict({IMAGE_ID: batch.column(IMAGE_ID), IMAGE: images})

    def predicted(frame: Any) -> Any:
        predict = mlflow.pyfunc.spark_udf(
            frame.sparkSession,
            f"models:/{MODEL_NAME}/1",
            result_type="label long, label_name string, probability double, probabilities array<double>, error string",
            env_manager="local",
        )
        return frame.select(IMAGE_ID, predict(F.struct(IMAGE)).alias("p")).select(IMAGE_ID, "p.label", "p.probability")

    def encoded(frame: Any) -> Any:
        if subject.model != "lenet":
            return frame
        path = f"{subject.folder}/png"
        if not Path(path).exists():
            frame.mapInArrow(encode, f"{IMAGE_ID} string, {IMAGE} binary").write.parquet(path)
        return frame.sparkSession.read.parquet(path)

    return with_spark(subject, predicted, encoded)


def with_spark(
    subject: Subject, predicted: Callable[[Any], Any], prepared: Callable[[Any], Any] = lambda frame: frame
) -> dict[str, Any]:
    """Let Spark read the images, predict, and write. `prepared` changes the images before the clock starts."""
    from pipelines.spark.session import spark_session

    frame = prepared(subject.frame(spark_session("sparkcnn benchmark")))
    output = f"{subject.folder}/other_predictions"

    def run() -> int:
        predicted(frame).write.mode("overwrite").parquet(output)
        return rows_in(output)

    try:
        return twice(run)
    finally:
        shutil.rmtree(output, ignore_errors=True)


def ray_data(subject: Subject) -> dict[str, Any]:
    """Run Ray Data, after its guide to batch inference: `map_batches` with one actor per core, which holds the model.

    Raises OSError if other machines could reach Ray.
    """
    ray = start_ray(f"{subject.folder}/r")
    output, batch_size = f"{subject.folder}/ray_predictions", BATCH[subject.model]

    def run() -> int:
        shutil.rmtree(output, ignore_errors=True)
        if subject.model == "lenet":
            images = ray.data.read_parquet(subject.files(), columns=[IMAGE_ID, IMAGE])
        else:
            files = ray.data.read_binary_files(f"{subject.folder}/photographs", include_paths=True)
            images = files.rename_columns({"path": IMAGE_ID, "bytes": IMAGE})
        actors = {"fn_constructor_args": (subject,), "batch_size": batch_size, "concurrency": os.cpu_count()}
        # If each actor had a whole core, no core would be left for the tasks that read and write.
        actors["num_cpus"] = 0.5
        images.map_batches(Predictor, **actors).write_parquet(output)
        return rows_in(output)

    try:
        return twice(run)
    finally:
        ray.shutdown()


class Predictor:
    """An actor of Ray: it loads the model once, then predicts batches."""

    def __init__(self, subject: Subject) -> None:
        os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = "1"
        import_tensorflow_quietly()
        self._subject = subject
        self._predict = compiled(subject.folder, subject.spec.shape)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        probabilities = self._predict(self._subject.pixels(batch[IMAGE])).numpy()
        labels = probabilities.argmax(axis=1)
        return {IMAGE_ID: batch[IMAGE_ID], "label": labels, "probability": probabilities.max(axis=1)}


def compiled(folder: str, shape: tuple[int, int, int]) -> Callable[[np.ndarray], Any]:
    """Return the model as a graph: images (batch, height, width, channels) uint8 -> probabilities (batch, classes)."""
    import keras
    import tensorflow as tf

    model = keras.saving.load_model(f"{folder}/model.keras", compile=False)
    signature = [tf.TensorSpec((None, *shape), tf.uint8)]
    return tf.function(lambda images: tf.nn.softmax(model(images, training=False)), input_signature=signature)


def rows_in(folder: str) -> int:
    """Return the number of rows in all Parquet files of a folder."""
    return sum(pq.read_metadata(path).num_rows for path in Path(folder).rglob("*.parquet"))


def twice(run: Callable[[], int]) -> dict[str, Any]:
    """Call `run` twice, and return its images and the seconds of both calls."""
    start = time.perf_counter()
    run()
    middle = time.perf_counter()
    images = run()
    return {"images": images, "cold": middle - start, "warm": time.perf_counter() - middle}


WAYS = {way.__name__: way for way in (prepare, ceiling, sparkcnn, predict_batch_udf, spark_udf, ray_data)}

if __name__ == "__main__":
    way, options = sys.argv[1], json.loads(sys.argv[2])
    subject = SUBJECTS[options.pop("subject")](options.pop("folder"))
    print(json.dumps(WAYS[way](subject, **options)))
