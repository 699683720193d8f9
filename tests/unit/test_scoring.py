"""Scoring in one task: every row that comes in goes out, decoded by the sealed model's own decoder."""

import hashlib
from dataclasses import replace
from datetime import datetime, timezone

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cnnlib.config import PredictionSettings
from cnnlib.errors import ImageSetError, ModelError, OutputExistsError
from cnnlib.image_set.contract import raw_pixels
from cnnlib.predictions.contract import SCHEMA, ScoredWith
from cnnlib.predictions.score_batch import ScorePlan, predict_batch, score_images
from cnnlib.predictions.scored_before import ScoredBefore
from cnnlib.quiet import import_tensorflow_quietly
from cnnlib.sealed.frozen.images import ImageSpec, encode_png
from cnnlib.sealed.frozen.predict import BYTES_AT_ONCE, Classifier, ModelCard
from cnnlib.storage.folder import open_folder

SPEC = ImageSpec(4, 6, 1)
CLASSES = ("dark", "grey", "light")
NOW = datetime(2026, 11, 22, 12, 30, 15, 123456, timezone.utc)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    """A classifier of mean brightness."""
    import_tensorflow_quietly()
    import tensorflow as tf

    def brightness(images, training):
        assert training is False
        mean = tf.reduce_mean(tf.cast(images, tf.float32), axis=(1, 2, 3))
        return -tf.abs(mean[:, None] - [0.0, 128.0, 255.0]) / 50

    return Classifier(brightness, ModelCard(SPEC, CLASSES, "f" * 64, "a" * 64, "package"))


def plan(folder=".", raw_shape=None, version="3", **settings) -> ScorePlan:
    model = ScoredWith("shades", version, "a" * 64)
    return ScorePlan(open_folder(str(folder)), "run", model, NOW, raw_shape, PredictionSettings(**settings))


def uniform(value: int, shape=SPEC.shape) -> np.ndarray:
    return np.full(shape, value, np.uint8)


def batch_of(contents, **columns) -> pa.RecordBatch:
    paths = [f"p/{number}" for number in range(len(contents))]
    columns = {"path": pa.array(paths, pa.string()), "content": pa.array(contents, pa.binary()), **columns}
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def test_raw_image_gives_a_whole_row(classifier):
    ids = pa.array(["id 0", "id 1", "id 2"])
    batch = batch_of([uniform(value).tobytes() for value in (250, 3, 120)], image_id=ids)
    result = predict_batch(plan(raw_shape=SPEC.shape), classifier, batch)
    assert result.schema == SCHEMA
    rows = result.to_pylist()
    assert [row["label_name"] for row in rows] == ["light", "dark", "grey"]
    assert [row["label"] for row in rows] == [2, 0, 1]
    logits = -np.abs(np.array([250, 3, 120])[:, None] - [0, 128, 255]) / 50
    expected = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).max(axis=1)
    np.testing.assert_allclose([row["probability"] for row in rows], expected, atol=1e-6)
    assert rows[1] | {"label": 0, "label_name": "dark", "probability": None} == {
        "image_id": "id 1",
        "path": "p/1",
        "label": 0,
        "label_name": "dark",
        "probability": None,
        "model_name": "shades",
        "model_version": "3",
        "model_sha256": "a" * 64,
        "error": None,
        "scored_at": NOW,
    }


def test_most_probable_classes_and_all_probabilities_on_request(classifier):
    contents = [uniform(value).tobytes() for value in (250, 120)]
    batch = batch_of([*contents, contents[0]]).slice(0, 2)
    asked = plan(raw_shape=SPEC.shape, top_k=2, probabilities=True)
    result = predict_batch(asked, classifier, batch)
    assert result.schema.names == [
        *SCHEMA.names,
        "top_labels",
        "top_label_names",
        "top_probabilities",
        "probabilities",
    ]
    bright, grey = result.to_pylist()
    assert (bright["top_labels"], bright["top_label_names"]) == ([2, 1], ["light", "grey"])
    assert (grey["top_labels"], grey["top_label_names"]) == ([1, 0], ["grey", "dark"])
    for row in (bright, grey):
        assert row["top_probabilities"] == [row["probabilities"][label] for label in row["top_labels"]]
        assert row["top_probabilities"][0] == pytest.approx(row["probability"])
        assert sum(row["probabilities"]) == pytest.approx(1)


def test_more_classes_than_there_are_are_all(classifier):
    (row,) = predict_batch(
        plan(raw_shape=SPEC.shape, top_k=9), classifier, batch_of([uniform(250).tobytes()])
    ).to_pylist()
    assert row["top_labels"] == [2, 1, 0]


def test_bad_row_has_nulls_for_what_was_asked(classifier):
    batch = batch_of([encode_png(uniform(250)), b"?", encode_png(uniform(2))])
    good, bad, again = predict_batch(plan(top_k=1, probabilities=True), classifier, batch).to_pylist()
    assert (good["top_labels"], bad["top_labels"], again["top_labels"]) == ([2], None, [0])
    assert bad["probabilities"] is None


def test_embedding_is_what_the_head_is_given():
    import_tensorflow_quietly()
    import keras

    shape = (2, 2, 3)
    inputs = keras.Input(shape, dtype="uint8")
    pooled = keras.layers.Rescaling(1 / 255)(inputs)
    # The head is the last layer with weights. The layer after it has none.
    logits = keras.layers.Conv2D(3, 2, name="head")(pooled)
    model = keras.Model(inputs, keras.layers.Flatten()(logits))
    embedding = Classifier(model, ModelCard(ImageSpec(2, 2, 3), CLASSES, "f" * 64, "a" * 64, "package"))
    pixels = np.random.default_rng(0).integers(0, 256, (5, *shape), dtype=np.uint8)
    batch = batch_of([image.tobytes() for image in pixels])
    plain = predict_batch(plan(raw_shape=shape), embedding, batch)
    result = predict_batch(plan(raw_shape=shape, embedding=True), embedding, batch)
    assert result.select(SCHEMA.names).equals(plain)
    np.testing.assert_allclose(np.array(result.column("embedding").to_pylist()), pixels.reshape(5, -1) / 255, atol=1e-6)


def test_model_without_layers_has_no_embedding(classifier):
    with pytest.raises(ModelError, match="^the model has no layer before its head to take an embedding from"):
        predict_batch(plan(raw_shape=SPEC.shape, embedding=True), classifier, batch_of([uniform(2).tobytes()]))


def test_a_slice_of_a_batch_is_scored_as_its_own_rows(classifier):
    batch = batch_of([uniform(value).tobytes() for value in (250, 3, 120, 255)])
    result = predict_batch(plan(raw_shape=SPEC.shape), classifier, batch.slice(1, 2))
    assert result.column(SCHEMA.get_field_index("label_name")).to_pylist() == ["dark", "grey"]


def test_bad_rows_keep_their_places_and_say_what_is_wrong(classifier):
    good = encode_png(uniform(250))
    contents = [None, good, b"no image", encode_png(uniform(2, (9, 9, 3))), None]
    codes = pa.array([None, None, None, None, "missing_file"], pa.string())
    messages = pa.array([None, None, None, None, "it has gone"], pa.string())
    rows = predict_batch(plan(version=None), classifier, batch_of(contents, code=codes, message=messages)).to_pylist()
    assert [row["label_name"] for row in rows] == [None, "light", None, "dark", None]
    assert [row["label"] for row in rows] == [None, 2, None, 0, None]
    assert [row["probability"] is None for row in rows] == [True, False, True, False, True]
    assert [(row["error"] or "none").split(":")[0] for row in rows] == [
        "empty_file",
        "none",
        "not_an_image",
        "none",
        "missing_file",
    ]
    assert rows[4]["error"] == "missing_file: it has gone"
    assert {row["model_version"] for row in rows} == {None}
    # The id is the hash of the content, or of the path if there is no content.
    assert rows[1]["image_id"] == hashlib.sha256(good).hexdigest()
    assert rows[4]["image_id"] == hashlib.sha256(b"p/4").hexdigest()


def test_row_without_content_or_path_is_a_row_with_an_error(classifier):
    batch = batch_of([None], path=pa.array([None], pa.string()))
    (row,) = predict_batch(plan(), classifier, batch).to_pylist()
    assert (row["label"], row["error"].split(":")[0]) == (None, "empty_file")


def test_arrays_of_another_size_are_resized(classifier):
    contents = [uniform(value, (8, 3, 3)).tobytes() for value in (0, 255)]
    rows = predict_batch(plan(raw_shape=(8, 3, 3)), classifier, batch_of(contents)).to_pylist()
    assert [row["label_name"] for row in rows] == ["dark", "light"]


@pytest.mark.parametrize("raw_shape", [None, SPEC.shape, (8, 3, 3)])
def test_batch_without_rows_gives_none(classifier, raw_shape):
    assert predict_batch(plan(raw_shape=raw_shape), classifier, batch_of([])).num_rows == 0


def test_written_rows_and_failures_are_counted(classifier, tmp_path):
    batches = [batch_of([encode_png(uniform(0)), b"no image"]), batch_of([b"", encode_png(uniform(255))])]
    written = score_images(plan(tmp_path), classifier, batches, 7, 1)
    assert (written.rows, dict(written.failed)) == (4, {"not_an_image": 1, "empty_file": 1})
    assert written.file.path == "predictions/part-00007-run-1.parquet"


def test_images_with_a_row_already_are_left_out_by_content(classifier, tmp_path):
    dark, light, grey = (encode_png(uniform(value)) for value in (0, 255, 128))
    earlier = score_images(plan(tmp_path), classifier, [batch_of([dark, b"no image", None])], 0, 0)
    paths = (earlier.file.path,)

    def again(batches, **changes):
        before = ScoredBefore(str(tmp_path), paths, changes.pop("model_sha256", None))
        written = score_images(replace(plan(tmp_path), before=before, run_id="again"), classifier, batches, 0, 0)
        rows = pq.read_table(tmp_path / written.file.path)["path"].to_pylist() if written.file else []
        return written.rows, written.skipped, rows

    # The same bytes under another name are not a new image. An image that could not be read before may be readable now.
    batches = [batch_of([light, dark]), batch_of([b"no image", grey, dark])]
    assert again(batches) == (2, 3, ["p/0", "p/1"])
    assert again([batch_of([dark])]) == (0, 1, [])
    assert again([batch_of([dark])], model_sha256="a" * 64) == (0, 1, [])
    assert again([batch_of([dark])], model_sha256="b" * 64) == (1, 0, ["p/0"])


def test_unreadable_earlier_rows_are_an_error(classifier, tmp_path):
    before = ScoredBefore(str(tmp_path), ("predictions/gone.parquet",), None)
    with pytest.raises(OutputExistsError, match="gone.parquet, a file of the earlier predictions, cannot be read"):
        score_images(replace(plan(tmp_path), before=before), classifier, [batch_of([b"?"])], 0, 0)


def test_few_images_are_decoded_at_a_time(classifier, tmp_path, monkeypatch):
    monkeypatch.setattr("cnnlib.predictions.score_batch.PIXEL_BYTES", 3 * SPEC.size_bytes)
    unpacked = []

    def predict_and_count(plan, classifier, batch):
        unpacked.append(batch.num_rows)
        return predict_batch(plan, classifier, batch)

    monkeypatch.setattr("cnnlib.predictions.score_batch.predict_batch", predict_and_count)
    batch = batch_of([encode_png(uniform(value)) for value in range(8)])
    written = score_images(plan(tmp_path), classifier, [batch], 0, 0)
    assert (unpacked, written.rows) == ([3, 3, 2], 8)
    paths = pq.read_table(tmp_path / written.file.path)["path"].to_pylist()
    assert paths == [f"p/{number}" for number in range(8)]


def test_raw_images_of_another_size_are_an_error(classifier):
    with pytest.raises(
        ImageSetError, match="are not 24 bytes long, which the set's image spec asks for; ingest it again"
    ):
        predict_batch(plan(raw_shape=SPEC.shape), classifier, batch_of([b"x" * 23]))


def test_many_images_go_through_the_model_in_parts(classifier, monkeypatch):
    sizes = []
    whole = classifier._probabilities
    monkeypatch.setattr(classifier, "_probabilities", lambda images: sizes.append(len(images)) or whole(images))
    images = np.random.default_rng(0).integers(0, 256, (5000, *SPEC.shape), np.uint8)
    together = classifier.predict_pixels(images)
    assert sizes == [2048, 2048, 904]
    np.testing.assert_allclose(together[2040:2060], whole(images[2040:2060])[0].numpy(), atol=1e-6)


@pytest.mark.parametrize(("side", "most"), [(96, BYTES_AT_ONCE // (96 * 96 * 3)), (224, 16), (1000, 16)])
def test_large_images_go_through_the_model_few_at_a_time(side, most, monkeypatch):
    import_tensorflow_quietly()
    import tensorflow as tf

    card = ModelCard(ImageSpec(side, side, 3), CLASSES, "f" * 64, "a" * 64, "package")
    classifier = Classifier(lambda images, training: tf.zeros((tf.shape(images)[0], 3)), card)
    sizes = []
    whole = classifier._probabilities
    monkeypatch.setattr(classifier, "_probabilities", lambda images: sizes.append(len(images)) or whole(images))
    assert classifier.predict_pixels(np.zeros((most + 1, side, side, 3), np.uint8)).shape == (most + 1, 3)
    assert sizes == [most, 1]


@pytest.mark.parametrize("stored", [[b"x" * 24, b"x" * 23], [b"x" * 24, None], [b"x" * 12, b"x" * 36]])
def test_rows_that_are_no_pixels_of_the_shape_are_refused(stored):
    with pytest.raises(ValueError, match="are not 24 bytes long"):
        raw_pixels(pa.array(stored, pa.binary()), SPEC.shape)


def test_pixels_are_a_view_of_arrows_memory():
    stored = pa.array([bytes(range(24)), bytes(range(100, 124))], pa.binary())
    pixels = raw_pixels(stored, SPEC.shape)
    assert pixels.tobytes() == bytes(range(24)) + bytes(range(100, 124))
    assert np.shares_memory(pixels, np.frombuffer(stored.buffers()[2], np.uint8))
