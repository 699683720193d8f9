"""A registered model gives the same predictions everywhere: in MLflow, Spark SQL, HTTP, and without this project."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
from pyspark.sql import SparkSession

from cnnlib.config import PredictionsOutputSettings, ScoreInputSettings, ScoreSettings
from cnnlib.mnist import read_mnist_file
from cnnlib.sealed.frozen.images import encode_png
from cnnlib.sources.idx import parse_idx
from pipelines.score.flow import score
from pipelines.tracking.registry import fetch_model
from pipelines.tracking.store import connect
from tests.spark.conftest import Trained
from tests.spark.probes import eventually

MODEL = "models:/digits@champion"
IMAGES = 1000
# A file that cannot be decoded also gets a row.
BROKEN = b"not an image"


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    """Images (1000, 28, 28, 1) uint8."""
    return parse_idx(read_mnist_file("t10k-images-idx3-ubyte.gz"), "images")[-IMAGES:, :, :, None]


@pytest.fixture(scope="module")
def files(digits: np.ndarray) -> list[bytes]:
    """The same images as PNG files, and one broken file."""
    return [*map(encode_png, digits), BROKEN]


@pytest.fixture(scope="module")
def folder(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the model as MLflow stores it."""
    connect(trained.tracking)
    return fetch_model(MODEL, tmp_path_factory.mktemp("model")).folder


@pytest.fixture(scope="module")
def expected(folder: Path, digits: np.ndarray) -> np.ndarray:
    """The probabilities (1000, 10) that Keras itself computes for the digits."""
    import keras

    model = keras.saving.load_model(folder / "artifacts/sealed/model.keras")
    return keras.ops.convert_to_numpy(keras.ops.softmax(model.predict(digits, verbose=0)))


def check(rows: pd.DataFrame, expected: np.ndarray) -> None:
    """Assert that the rows, in the order of `files`, equal Keras, and that the broken one has only an error."""
    *good, broken = rows.to_dict("records")
    assert [row["label"] for row in good] == expected.argmax(axis=1).tolist()
    assert [row["label_name"] for row in good] == [str(label) for label in expected.argmax(axis=1)]
    np.testing.assert_allclose([row["probability"] for row in good], expected.max(axis=1), atol=1e-5)
    if "probabilities" in rows:
        np.testing.assert_allclose([list(row["probabilities"]) for row in good], expected, atol=1e-5)
    assert all(pd.isna(row["error"]) for row in good)
    assert broken["error"].startswith("not_an_image: ")
    assert all(broken[name] is None or broken[name] != broken[name] for name in ("label", "label_name", "probability"))


@pytest.mark.main_path
def test_loaded_by_mlflow(files: list[bytes], expected: np.ndarray) -> None:
    check(mlflow.pyfunc.load_model(MODEL).predict(pd.DataFrame({"image": files})), expected)


def test_arrays_instead_of_files(trained: Trained, digits: np.ndarray, expected: np.ndarray) -> None:
    connect(trained.tracking)
    rows = mlflow.pyfunc.load_model(MODEL).predict(pd.DataFrame({"image": [*digits]}))
    assert rows.label.tolist() == expected.argmax(axis=1).tolist()
    assert rows.error.isna().all()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"picture": [b"?"]}, r"missing inputs \['image'\]"),
        ({"image": [0.5]}, "Incompatible input types for column image"),
        (
            {"image": [np.zeros((28, 28, 2), np.uint8)]},
            r"takes arrays \(28, 28, 1\) uint8.*received \(28, 28, 2\) uint8",
        ),
        ({"image": ["a.png"]}, "the model takes encoded files as bytes, or arrays .* received str"),
    ],
)
def test_input_of_another_kind_is_refused(trained: Trained, table: dict[str, list], message: str) -> None:
    connect(trained.tracking)
    # The code inside the model has its own exception classes.
    with pytest.raises(Exception, match=message):
        mlflow.pyfunc.load_model(MODEL).predict(pd.DataFrame(table))


def test_by_the_scoring_job(
    spark: SparkSession, trained: Trained, files: list[bytes], expected: np.ndarray, tmp_path: Path
) -> None:
    names = [f"{number:04d}.png" for number in range(len(files))]
    pd.DataFrame({"path": names, "content": files}).to_parquet(tmp_path / "images.parquet")
    predictions = score(
        spark,
        ScoreSettings(
            model=MODEL,
            input=ScoreInputSettings(path=str(tmp_path / "images.parquet"), format="table"),
            output=PredictionsOutputSettings(path=str(tmp_path / "out")),
            tracking=trained.tracking,
        ),
    )
    check(pd.read_parquet(f"{predictions.path}/predictions").sort_values("path"), expected)


def test_in_a_query_of_spark(
    spark: SparkSession, trained: Trained, files: list[bytes], expected: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    # One batch has no broken image, one has some, and one has only broken images.
    images = pd.DataFrame({"number": range(len(files) + 2), "content": [*files, BROKEN, BROKEN]})
    for name, part in (("good", images[:500]), ("mixed", images[500 : IMAGES + 1]), ("broken", images[IMAGES + 1 :])):
        part.to_parquet(tmp_path / "images" / f"{name}.parquet")
    connect(trained.tracking)
    spark.udf.register("digit", mlflow.pyfunc.spark_udf(spark, MODEL, env_manager="local"))
    rows = spark.sql(
        "SELECT number, predicted.* FROM (SELECT number, digit(content) AS predicted FROM parquet.`"
        f"{tmp_path}/images`) ORDER BY number"
    ).collect()
    table = pd.DataFrame([row.asDict() for row in rows], dtype=object)
    check(table[: IMAGES + 1], expected)
    assert [(row.label, row.label_name, row.error[:12]) for row in rows[IMAGES:]] == [(None, None, "not_an_image")] * 3
    assert {row.error for row in rows[:IMAGES]} == {None}


@pytest.fixture
def served(trained: Trained, tmp_path: Path) -> Iterator[str]:
    """The URL of a running `mlflow models serve`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", MODEL, "--env-manager", "local"]
            + ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
            # The server starts uvicorn by its name, so PATH must have it.
            env=os.environ
            | {
                "MLFLOW_TRACKING_URI": trained.tracking.uri or "",
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            },
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        eventually(lambda: server.poll() is not None or answers(port))
        assert server.poll() is None, (tmp_path / "log").read_text()
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/ping", timeout=10).ok
    except requests.ConnectionError:
        return False


def test_behind_http(served: str, files: list[bytes], expected: np.ndarray) -> None:
    rows = [[base64.b64encode(file).decode()] for file in files]
    answer = requests.post(served, json={"dataframe_split": {"columns": ["image"], "data": rows}}, timeout=60)
    assert answer.ok, answer.text
    check(pd.DataFrame(answer.json()["predictions"]), expected)


PREDICT_ELSEWHERE = """
import base64, importlib.util, json, sys
import mlflow, pandas as pd

assert not any(importlib.util.find_spec(name) for name in ("cnnlib", "pipelines", "pyspark", "petastorm"))
files = [base64.b64decode(line) for line in sys.stdin]
mlflow.pyfunc.load_model(sys.argv[1]).predict(pd.DataFrame({"image": files})).to_json(sys.argv[2], orient="records")
"""


def test_in_an_environment_with_only_its_requirements(
    folder: Path, files: list[bytes], expected: np.ndarray, tmp_path: Path
) -> None:
    python = tmp_path / "venv/bin/python"
    uv = Path(sys.executable).with_name("uv")
    pip = [str(uv), "pip", "install", "--python", str(python)] if uv.exists() else [str(python), "-m", "pip", "install"]
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    subprocess.run([*pip, "--quiet", "--requirement", str(folder / "requirements.txt")], check=True)
    subprocess.run(
        [str(python), "-c", PREDICT_ELSEWHERE, str(folder), str(tmp_path / "predictions.json")],
        input="\n".join(base64.b64encode(file).decode() for file in files),
        text=True,
        check=True,
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    check(pd.DataFrame(json.loads((tmp_path / "predictions.json").read_text())), expected)
