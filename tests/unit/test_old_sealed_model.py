"""A model that an older version sealed still works, with its own code, behind the calls of `frozen_interface`."""

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cnnlib.config import PredictionSettings
from cnnlib.errors import ModelError
from cnnlib.evaluation.image_predictions import ImagePredictionsPlan, predict_labelled
from cnnlib.predictions.contract import ScoredWith
from cnnlib.predictions.score_batch import ScorePlan, predict_batch, score_images
from cnnlib.quiet import import_tensorflow_quietly
from cnnlib.sealed.frozen_interface import SINCE, SealedCard, SealedClassifier, SealedImageSpec, require
from cnnlib.sealed.seal import ARTIFACTS, open_sealed
from cnnlib.storage.folder import open_folder
from tests.unit.pictures import encoded, uniform

# As MLflow stored it: 8 x 8 grey, an mlp, classes dark and light.
OLD_MODEL = Path(__file__).parents[1] / "data" / "old_sealed_model"
LEVELS = (0, 60, 125, 190, 255)
# What it gave for these levels when it was sealed.
PROBABILITIES = [
    [0.999992847442627, 7.101923074515071e-06],
    [0.9980316758155823, 0.001968350727111101],
    [0.5332416892051697, 0.4667583107948303],
    [0.011612906120717525, 0.9883870482444763],
    [0.00015051887021400034, 0.9998494386672974],
]
PIXELS = np.stack([np.full((8, 8, 1), level, np.uint8) for level in LEVELS])


@pytest.fixture(scope="module")
def old() -> SealedClassifier:
    import_tensorflow_quietly()
    import keras

    # Make a first Flatten layer. Otherwise Keras gives the one in this old code's embed_pixels the same name as the
    # model's own, and refuses both. Later versions name theirs.
    keras.layers.Flatten()
    return open_sealed(OLD_MODEL)


def plan(folder: Path, **settings: Any) -> ScorePlan:
    model = ScoredWith("old", "1", "a" * 64)
    now = datetime(2026, 11, 22, tzinfo=timezone.utc)
    return ScorePlan(open_folder(str(folder)), "run", model, now, None, PredictionSettings(**settings))


def batch_of(*contents: bytes | None, **columns: pa.Array) -> pa.RecordBatch:
    paths = [f"{number}.png" for number in range(len(contents))]
    return pa.RecordBatch.from_pydict({"path": paths, "content": pa.array(contents, pa.binary()), **columns})


def png(level: int) -> bytes:
    return encoded(uniform("L", level), "PNG")


def test_old_model_runs_its_own_code(old):
    module = type(old).__module__
    assert module.startswith("sparkcnn_sealed_")
    assert "cnnlib" not in module
    # None of its classes is one of today's.
    assert type(old.card.image).__module__ == module.replace(".predict", ".images")


def check_card(old: SealedClassifier) -> None:
    assert old.card.classes == ("dark", "light")
    assert old.card.image.shape == (8, 8, 1)
    assert old.card.image.size_bytes == 64


def check_predict_pixels(old: SealedClassifier) -> None:
    probabilities = old.predict_pixels(PIXELS)
    np.testing.assert_allclose(probabilities, PROBABILITIES, atol=1e-5)
    assert probabilities.dtype == np.float32


def check_embed_pixels(old: SealedClassifier) -> None:
    probabilities, embeddings = old.embed_pixels(PIXELS)
    np.testing.assert_allclose(probabilities, PROBABILITIES, atol=1e-5)
    # Its head is given the four units of the layer before it.
    assert (embeddings.shape, embeddings.dtype) == ((5, 4), np.float32)


def check_to_pixels(old: SealedClassifier) -> None:
    pixels, errors = old.to_pixels([png(60), b"no image", None, np.full((16, 4, 3), 190, np.uint8)], fit=True)
    assert [error and error.split(":")[0] for error in errors] == [None, "not_an_image", "empty_file", None]
    np.testing.assert_array_equal(pixels, PIXELS[[1, 3]])
    with pytest.raises(Exception, match="the model takes arrays") as refused:
        old.to_pixels([np.full((16, 4, 3), 190, np.uint8)])
    assert type(refused.value).__name__ == "ModelError"


def check_predict_images(old: SealedClassifier) -> None:
    rows = old.predict_images([png(level) for level in LEVELS] + [b"no image"])
    assert list(rows.columns) == ["label", "label_name", "probability", "probabilities", "error"]
    assert rows["label"].tolist() == [0, 0, 0, 1, 1, None]
    assert rows["label_name"].tolist() == ["dark", "dark", "dark", "light", "light", None]
    np.testing.assert_allclose(np.array(rows["probabilities"].tolist()[:5]), PROBABILITIES, atol=1e-5)
    np.testing.assert_allclose(rows["probability"].astype(float)[:5], np.max(PROBABILITIES, axis=1), atol=1e-5)
    assert rows["error"].tolist()[:5] == [None] * 5
    assert rows["error"][5].startswith("not_an_image: ")


CHECKS: dict[str, Callable[[SealedClassifier], None]] = {
    "card": check_card,
    "predict_pixels": check_predict_pixels,
    "embed_pixels": check_embed_pixels,
    "to_pixels": check_to_pixels,
    "predict_images": check_predict_images,
}


@pytest.mark.parametrize("call", CHECKS)
def test_each_call_works_on_an_old_model(old, call):
    CHECKS[call](old)


def calls_of(protocol: type) -> set[str]:
    return {name for name in vars(protocol) if not name.startswith("_")}


def test_each_call_has_a_version_and_a_check():
    assert calls_of(SealedClassifier) == set(SINCE) == set(CHECKS)
    # `check_card` reads these.
    assert calls_of(SealedCard) == {"image", "classes"}
    assert calls_of(SealedImageSpec) == {"shape", "size_bytes"}


def test_batch_is_scored_with_an_old_model(old, tmp_path):
    batch = batch_of(*(png(level) for level in LEVELS), b"no image", None)
    written = score_images(plan(tmp_path, probabilities=True, embedding=True), old, [batch], 0, 0)
    assert (written.rows, dict(written.failed)) == (7, {"not_an_image": 1, "empty_file": 1})
    rows = pq.read_table(tmp_path / written.file.path).to_pylist()
    assert [row["label_name"] for row in rows] == ["dark", "dark", "dark", "light", "light", None, None]
    np.testing.assert_allclose([row["probabilities"] for row in rows[:5]], PROBABILITIES, atol=1e-5)
    assert [len(row["embedding"]) for row in rows[:5]] == [4] * 5
    # The errors that its own decoder raised.
    errors = [row["error"] and row["error"].split(":")[0] for row in rows]
    assert errors == [None] * 5 + ["not_an_image", "empty_file"]


def test_labelled_batch_is_evaluated_with_an_old_model(old):
    plan = ImagePredictionsPlan(("light", "dark"), None, ("brightness",))
    batch = batch_of(png(60), b"no image", png(190), image_id=["1" * 64, "2" * 64, "3" * 64], label=pa.array([1, 0, 0]))
    (rows,) = predict_labelled(plan, old, [batch])
    assert rows["predicted"].to_pylist() == rows["brightness"].to_pylist() == [1, None, 0]
    assert rows["label_rank"].to_pylist() == [0, None, 0]


def test_call_that_an_older_model_lacks_is_refused_in_one_line(old, tmp_path):
    older = SimpleNamespace(card=old.card, predict_pixels=old.predict_pixels, to_pixels=old.to_pixels)
    assert predict_batch(plan(tmp_path), older, batch_of(png(60))).num_rows == 1
    with pytest.raises(ModelError, match=r"^the model has no embed_pixels, because .* before sparkcnn 0\.1\.0; train"):
        predict_batch(plan(tmp_path, embedding=True), older, batch_of(png(60)))
    for call in SINCE:
        require(old, call)


def test_error_of_the_old_code_is_a_model_error(tmp_path):
    artifacts = tmp_path / ARTIFACTS
    artifacts.mkdir(parents=True)
    # The weights are missing: its own code finds that out, and raises an error class of its own.
    (artifacts / "model.json").write_text((OLD_MODEL / ARTIFACTS / "model.json").read_text())
    (tmp_path / "code").symlink_to(OLD_MODEL / "code")
    with pytest.raises(ModelError, match=r"is not a sealed model of sparkcnn: it has no model\.keras"):
        open_sealed(tmp_path)
