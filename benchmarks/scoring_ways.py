"""What benchmarks/scoring.py measures, each in a process of its own: `python -m benchmarks.scoring_ways WAY OPTIONS`.

OPTIONS are a JSON object; the last line printed is another: how many images came out, and the seconds of a first run
(`cold`: Python workers and models are not there yet, the session is) and of a second one in the same session (`warm`).
Every way writes label and probability of every image to Parquet.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.idx import idx_bytes
from cnnlib.imageset import open_image_set, raw_pixels
from cnnlib.quiet import import_tensorflow_quietly

SPLIT = "test"
SEED = 0
MODEL_NAME = "benchmark"


def prepare(folder: str, images: int) -> dict[str, Any]:
    """Make an image set of digits with noise, no two alike, and register a LeNet that has not been trained."""
    import_tensorflow_quietly()
    import keras

    from cnnlib.config import IngestSettings, StoreSettings
    from cnnlib.models import build_model
    from pipelines.ingest import ingest
    from pipelines.registry import log_sealed_model
    from pipelines.session import spark_session
    from pipelines.store import connect

    source = Path(folder) / "idx"
    write_digits(source, images)
    settings = IngestSettings(
        source={"format": "idx", "path": str(source)},
        split={"val_fraction": 0, "test_fraction": 0},
        output={"path": f"{folder}/set"},
    )
    spark = spark_session("sparkcnn benchmark")
    image_set = ingest(spark, settings)
    spark.stop()
    keras.utils.set_random_seed(SEED)
    model = build_model("lenet", image_shape=image_set.image.shape, classes=len(image_set.classes))
    import mlflow

    connect(StoreSettings(uri=f"sqlite:///{folder}/mlflow.db"))
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("benchmark", artifact_location=f"{folder}/artifacts"))
    with mlflow.start_run():
        log_sealed_model(model, image_set, np.zeros(image_set.image.shape, np.uint8), register_as=MODEL_NAME)
    model.save(f"{folder}/model.keras")
    return {"images": image_set.splits[SPLIT].rows}


def write_digits(folder: Path, images: int) -> None:
    """IDX files of MNIST's digits, over and over, each with noise of its own."""
    from cnnlib.mnist import read_mnist_file
    from cnnlib.sources.idx import parse_idx

    digits = parse_idx(read_mnist_file("train-images-idx3-ubyte.gz"), "images")
    labels = parse_idx(read_mnist_file("train-labels-idx1-ubyte.gz"), "labels")
    chosen = np.arange(images) % len(digits)
    noise = np.random.default_rng(SEED).integers(0, 32, (images, 28, 28), np.uint8)
    folder.mkdir()
    # As test images, so that all are in one split.
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(np.maximum(digits[chosen], noise)))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(labels[chosen]))


# --- the ways


def ceiling(folder: str) -> dict[str, Any]:
    """One process, all cores, images in memory, and nothing written: what the model itself takes."""
    import_tensorflow_quietly()
    import keras
    import tensorflow as tf

    files = open_image_set(f"{folder}/set").files(SPLIT)
    table = pa.concat_tables(pq.read_table(path, columns=["image"]) for path in files)
    pixels = np.concatenate([raw_pixels(chunk, (28, 28, 1)) for chunk in table["image"].chunks])
    start = time.perf_counter()
    model = keras.saving.load_model(f"{folder}/model.keras", compile=False)
    predict = tf.function(
        lambda images: tf.nn.softmax(model(images, training=False)),
        input_signature=[tf.TensorSpec((None, 28, 28, 1), tf.uint8)],
    )
    seconds = []
    for _ in range(2):
        probabilities = [predict(pixels[first : first + 2000]).numpy() for first in range(0, len(pixels), 2000)]
        seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
    return {"images": sum(map(len, probabilities)), "cold": seconds[0], "warm": seconds[1]}


def sparkcnn(folder: str) -> dict[str, Any]:
    """This project's scoring job."""
    from cnnlib.config import ScoreSettings
    from pipelines.score import score
    from pipelines.session import spark_session

    spark = spark_session("sparkcnn benchmark")
    settings = ScoreSettings(
        model=f"models:/{MODEL_NAME}/1",
        input={"path": f"{folder}/set", "split": SPLIT},
        output={"path": f"{folder}/predictions", "overwrite": True},
        tracking={"uri": f"sqlite:///{folder}/mlflow.db"},
    )
    return twice(lambda: score(spark, settings).counts["scored"])


def predict_batch_udf(folder: str) -> dict[str, Any]:
    """Spark's own function for it, around `model.predict`, as its guide has it."""
    from pyspark.ml.functions import predict_batch_udf as batch_udf
    from pyspark.sql.types import ArrayType, FloatType

    file = f"{folder}/model.keras"

    def make() -> Callable[[np.ndarray], np.ndarray]:
        import_tensorflow_quietly()
        import keras

        model = keras.saving.load_model(file, compile=False)

        def predict(images: np.ndarray) -> np.ndarray:
            pixels = np.frombuffer(b"".join(images), np.uint8).reshape(-1, 28, 28, 1)
            return keras.ops.convert_to_numpy(keras.ops.softmax(model.predict(pixels, batch_size=1024, verbose=0)))

        return predict

    predict = batch_udf(make, return_type=ArrayType(FloatType()), batch_size=4096)
    return with_spark(folder, lambda frame: frame.select("image_id", predict("image").alias("probabilities")))


def spark_udf(folder: str) -> dict[str, Any]:
    """MLflow's UDF of the same registered model. It takes encoded files: the pixels go to it as PNG."""
    import mlflow
    from pyspark.sql import functions as F

    from cnnlib.config import StoreSettings
    from cnnlib.images import encode_png
    from pipelines.store import connect

    connect(StoreSettings(uri=f"sqlite:///{folder}/mlflow.db"))

    def encode(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            images = [encode_png(image) for image in raw_pixels(batch.column("image"), (28, 28, 1))]
            yield pa.RecordBatch.from_pydict({"image_id": batch.column("image_id"), "image": images})

    def predicted(frame: Any) -> Any:
        predict = mlflow.pyfunc.spark_udf(
            frame.sparkSession,
            f"models:/{MODEL_NAME}/1",
            result_type="label long, label_name string, probability double, probabilities array<double>, error string",
            env_manager="local",
        )
        return frame.select("image_id", predict(F.struct("image")).alias("p")).select(
            "image_id", "p.label", "p.probability"
        )

    def encoded(frame: Any) -> Any:
        path = f"{folder}/png"
        if not Path(path).exists():
            frame.select("image_id", "image").mapInArrow(encode, "image_id string, image binary").write.parquet(path)
        return frame.sparkSession.read.parquet(path)

    return with_spark(folder, predicted, encoded)


def with_spark(
    folder: str, predicted: Callable[[Any], Any], prepared: Callable[[Any], Any] = lambda frame: frame
) -> dict[str, Any]:
    """Have Spark read the images, predict, and write."""
    from pipelines.published import read_split
    from pipelines.session import spark_session

    spark = spark_session("sparkcnn benchmark")
    frame = prepared(read_split(spark, open_image_set(f"{folder}/set"), SPLIT))
    output = f"{folder}/other_predictions"

    def run() -> int:
        predicted(frame).write.mode("overwrite").parquet(output)
        return sum(pq.read_metadata(path).num_rows for path in Path(output).glob("*.parquet"))

    try:
        return twice(run)
    finally:
        shutil.rmtree(output, ignore_errors=True)


def twice(run: Callable[[], int]) -> dict[str, Any]:
    """Run cold, and run warm."""
    start = time.perf_counter()
    run()
    middle = time.perf_counter()
    images = run()
    return {"images": images, "cold": middle - start, "warm": time.perf_counter() - middle}


WAYS = {way.__name__: way for way in (prepare, ceiling, sparkcnn, predict_batch_udf, spark_udf)}

if __name__ == "__main__":
    way, options = sys.argv[1:]
    print(json.dumps(WAYS[way](**json.loads(options))))
