"""A model of keras.applications with its own 1,000 classes: it is registered, and scores images."""

import json
import re
from pathlib import Path

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pyspark.sql import SparkSession

from cnnlib.config import (
    ImagenetSettings,
    PredictionsOutputSettings,
    ScoreInputSettings,
    ScoreSettings,
    TrackingSettings,
)
from cnnlib.errors import ConfigError
from pipelines.score.flow import score
from pipelines.train.imagenet import register_imagenet

SIDE = 32


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[keras.Model, Path]:
    """A model with random weights, and the file of those weights. The class names are in Keras' download folder."""
    keras.utils.set_random_seed(0)
    network = keras.applications.MobileNetV2(weights=None, input_shape=(SIDE, SIDE, 3), classifier_activation=None)
    # With the initial weights of the head, every image would get the same class.
    head = network.layers[-1]
    head.set_weights([np.random.default_rng(0).normal(0, 5, weight.shape) for weight in head.get_weights()])
    network.save_weights(tmp_path / "whole.weights.h5")
    (tmp_path / "keras" / "models").mkdir(parents=True)
    index = {str(number): [f"n{number:08}", f"thing_{number}"] for number in range(1000)}
    (tmp_path / "keras" / "models" / "imagenet_class_index.json").write_text(json.dumps(index))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return network, tmp_path / "whole.weights.h5"


def settings(folder: Path, weights: Path | str, **sections: dict) -> ImagenetSettings:
    return ImagenetSettings(
        model={"name": "mobilenet_v2", "weights": str(weights)},
        image={"height": SIDE, "width": SIDE},
        tracking={"uri": f"sqlite:///{folder}/mlflow.db"},
        **sections,
    )


def test_score_names_the_classes_of_the_model(
    spark: SparkSession, weights: tuple[keras.Model, Path], tmp_path: Path
) -> None:
    network, file = weights
    registered = register_imagenet(settings(tmp_path, file))
    assert (registered.name, registered.version, registered.classes) == ("imagenet", "1", 1000)
    images = np.random.default_rng(1).integers(0, 256, (12, SIDE, SIDE, 3), np.uint8)
    (tmp_path / "images").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "images" / f"{number:02}.png")
    score(
        spark,
        ScoreSettings(
            model="models:/imagenet@champion",
            input=ScoreInputSettings(format="image_folder", path=str(tmp_path / "images")),
            output=PredictionsOutputSettings(path=str(tmp_path / "predictions")),
            tracking=TrackingSettings(uri=f"sqlite:///{tmp_path}/mlflow.db"),
        ),
    )
    rows = pq.read_table(tmp_path / "predictions" / "predictions").sort_by("path").to_pylist()
    preprocessed = keras.applications.mobilenet_v2.preprocess_input(images.astype(np.float32))
    expected = keras.ops.convert_to_numpy(network(preprocessed, training=False)).argmax(axis=1)
    assert [row["label"] for row in rows] == expected.tolist()
    assert [row["label_name"] for row in rows] == [f"thing_{label}" for label in expected]


def test_wrong_number_of_class_names_is_refused(weights: tuple[keras.Model, Path], tmp_path: Path) -> None:
    _, file = weights
    index = tmp_path / "keras" / "models" / "imagenet_class_index.json"
    index.write_text(json.dumps({"0": ["n0", "only"]}))
    with pytest.raises(ConfigError, match=r"mobilenet_v2 has 1000 classes, but Keras' file \S+ has 1 names"):
        register_imagenet(settings(tmp_path, file))
    assert not (tmp_path / "mlflow.db").exists()


def test_missing_weights_are_refused(weights: tuple[keras.Model, Path], tmp_path: Path) -> None:
    missing = tmp_path / "nowhere.h5"
    with pytest.raises(ConfigError, match=re.escape(f"model.weights={missing} is not there; expected imagenet")):
        register_imagenet(settings(tmp_path, missing))
    assert not (tmp_path / "mlflow.db").exists()
