"""Sealed models: the probabilities of training, an error row for a bad image, and no file opened unchecked."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnlib.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

import keras  # noqa: E402
from keras.ops import convert_to_numpy as to_numpy  # noqa: E402

from cnnlib.errors import ModelError  # noqa: E402
from cnnlib.models import build_model  # noqa: E402
from cnnlib.sealed.frozen.images import ImageSpec, Limits, encode_png  # noqa: E402
from cnnlib.sealed.frozen.predict import CARD_FILE, MODEL_FILE, ModelCard, load_classifier, read_card, sha256_of  # noqa: E402
from cnnlib.sealed.seal import ARTIFACTS, CODE, SEALED, open_sealed, seal  # noqa: E402
from tests.unit.pictures import encoded  # noqa: E402

SPEC = ImageSpec(16, 20, 3)
CLASSES = ("cat", "dog", "emu", "fox")
COLUMNS = ["label", "label_name", "probability", "probabilities", "error"]


def noise(rows: int, seed: int = 0, shape=SPEC.shape) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, *shape), dtype=np.uint8)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(3)
    built = build_model("lenet", image_shape=SPEC.shape, classes=4, mean=(0.4, 0.5, 0.6), std=(0.3, 0.2, 0.1))
    # Though it is untrained, its predictions must differ between images.
    kernel, _ = built.get_layer("logits").weights
    kernel.assign(40 * kernel)
    return built


@pytest.fixture(scope="module")
def sealed(model, tmp_path_factory) -> tuple[Path, ModelCard]:
    folder = tmp_path_factory.mktemp("seal")
    return folder, seal(model, folder, image=SPEC, classes=CLASSES, fingerprint="f" * 64)


@pytest.fixture(scope="module")
def classifier(sealed):
    folder, _ = sealed
    return load_classifier(folder / SEALED)


@pytest.fixture
def artifacts(sealed, tmp_path) -> Path:
    """A copy of the artifacts that a test may damage."""
    folder, _ = sealed
    return Path(shutil.copytree(folder / SEALED, tmp_path / "artifacts"))


@pytest.fixture(scope="module")
def model_folder(sealed, tmp_path_factory) -> Path:
    """The model's folder as MLflow stores it."""
    folder, card = sealed
    stored = tmp_path_factory.mktemp("model")
    shutil.copytree(folder / SEALED, stored / ARTIFACTS)
    package = card.code_package
    shutil.copytree(folder / package, stored / CODE / package, ignore=shutil.ignore_patterns("__pycache__"))
    return stored


# --- predictions


def test_probabilities_are_the_softmax_of_the_models_logits(model, classifier):
    images = noise(7)
    expected = to_numpy(keras.ops.softmax(model(images)))
    received = classifier.predict_pixels(images)
    assert (received.shape, received.dtype) == ((7, 4), np.float32)
    np.testing.assert_allclose(received, expected, atol=1e-6)
    assert len(set(received.argmax(axis=1))) > 1


def test_row_names_the_most_probable_class(classifier):
    images = noise(20)
    probabilities = classifier.predict_pixels(images)
    frame = classifier.predict_images(list(images))
    assert frame["label"].tolist() == probabilities.argmax(axis=1).tolist()
    assert frame["label_name"].tolist() == [CLASSES[label] for label in frame["label"]]
    np.testing.assert_allclose(frame["probability"].astype(float), probabilities.max(axis=1), atol=1e-6)
    np.testing.assert_allclose(np.array(frame["probabilities"].tolist()), probabilities, atol=1e-6)
    assert frame["error"].tolist() == [None] * 20


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_png_and_array_give_the_same(classifier, wrap):
    images = list(noise(5))
    of_files = classifier.predict_images([wrap(encode_png(image)) for image in images])
    assert of_files.equals(classifier.predict_images(images))


def test_file_of_another_size_is_resized(classifier):
    uniform = encode_png(np.full((50, 30, SPEC.channels), 90, np.uint8))
    of_the_size = np.full(SPEC.shape, 90, np.uint8)
    assert classifier.predict_images([uniform]).equals(classifier.predict_images([of_the_size]))


@pytest.mark.parametrize(
    "array", [np.zeros((50, 30, 3), np.uint8), np.zeros(SPEC.shape, np.float32), np.zeros((3, 3), np.uint8)], ids=str
)
def test_array_of_another_shape_or_type_is_refused_with_both(classifier, array):
    with pytest.raises(ModelError) as refused:
        classifier.predict_images([array])
    assert f"the model takes arrays {SPEC.shape} uint8" in str(refused.value)
    assert f"received {array.shape} {array.dtype}" in str(refused.value)


def test_bad_images_are_error_rows_among_good_ones(classifier):
    good = list(noise(4))
    mixed = [good[0], b"", good[1], b"no image", None, good[2], b"GIF89a", good[3], float("nan")]
    frame = classifier.predict_images(mixed)
    assert list(frame.columns) == COLUMNS
    expected = classifier.predict_images(good)
    for row, number in zip((0, 2, 5, 7), range(4), strict=True):
        assert frame.iloc[row].tolist()[:2] == expected.iloc[number].tolist()[:2]
        np.testing.assert_allclose(frame["probabilities"][row], expected["probabilities"][number], atol=1e-6)
        assert frame["error"][row] is None
    codes = {row: frame["error"][row].split(":")[0] for row in (1, 3, 4, 6, 8)}
    assert codes == {1: "empty_file", 3: "not_an_image", 4: "empty_file", 6: "truncated", 8: "empty_file"}
    assert all(frame[column][row] is None for row in codes for column in COLUMNS[:-1])


@pytest.mark.parametrize(("image", "received"), [("a.png", "str"), (3.5, "float"), ([[1]], "list")])
def test_value_that_is_no_image_is_refused(classifier, image, received):
    with pytest.raises(
        ModelError, match=f"^the model takes encoded files as bytes, or arrays .*; received {received}$"
    ):
        classifier.predict_images([encode_png(noise(1)[0]), image])


@pytest.mark.parametrize("images", [[], [b"", None]], ids=["none", "none-that-can-be-used"])
def test_batch_without_images_to_predict_has_its_rows(classifier, images):
    frame = classifier.predict_images(images)
    assert list(frame.columns) == COLUMNS
    assert frame["label"].tolist() == [None] * len(images)


@pytest.mark.parametrize(
    "images",
    [
        pytest.param(noise(2).astype(np.float32), id="float"),
        pytest.param(noise(2, shape=(16, 16, 3)), id="another-shape"),
        pytest.param(noise(1)[0], id="no-batch"),
    ],
)
def test_pixels_that_do_not_fit_are_a_model_error(classifier, images):
    with pytest.raises(ModelError, match=r"takes \(batch, 16, 20, 3\) uint8"):
        classifier.predict_pixels(images)


# --- the sealed files


def test_card_tells_what_the_model_needs(sealed):
    folder, card = sealed
    (package,) = (path.name for path in folder.glob("sparkcnn_sealed_*"))
    expected = ModelCard(SPEC, CLASSES, "f" * 64, sha256_of(folder / SEALED / MODEL_FILE), package)
    assert read_card(folder / SEALED) == card == expected


def test_code_of_the_same_content_has_the_same_name(model, sealed, tmp_path):
    _, card = sealed
    again = seal(model, tmp_path, image=SPEC, classes=CLASSES, fingerprint="0" * 64)
    assert again.code_package == card.code_package
    assert sorted(path.name for path in (tmp_path / again.code_package).iterdir()) == [
        "__init__.py",
        "containers.py",
        "errors.py",
        "grouped_convolution.py",
        "images.py",
        "predict.py",
        "sql_nulls.py",
    ]


def test_changed_weights_are_refused_before_they_are_opened(artifacts):
    # If the file were opened, Keras would raise an error of its own.
    (artifacts / MODEL_FILE).write_bytes(b"no model")
    with pytest.raises(ModelError, match="has SHA-256 [0-9a-f]{64}, but [0-9a-f]{64} was registered"):
        load_classifier(artifacts)


def test_intact_model_that_is_not_the_registered_is_refused(artifacts):
    build_model("lenet", image_shape=SPEC.shape, classes=4).save(artifacts / MODEL_FILE)
    with pytest.raises(ModelError, match="has SHA-256"):
        load_classifier(artifacts)


def with_code_inside(file: Path) -> None:
    layers = [keras.Input(SPEC.shape, dtype="uint8"), keras.layers.Lambda(lambda images: images[:, 0, 0, 0])]
    keras.Sequential(layers).save(file)


def as_hdf5(file: Path) -> None:
    layers = [keras.Input(SPEC.shape, dtype="uint8"), keras.layers.Flatten()]
    keras.Sequential(layers).save(file.with_suffix(".h5"))
    file.with_suffix(".h5").rename(file)


def of_no_layer(file: Path) -> None:
    """Write a file that makes Keras import and call a function."""
    config = {"module": "os", "class_name": "system", "config": {"command": "touch owned"}, "registered_name": "system"}
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("metadata.json", "{}")
        archive.writestr("model.weights.h5", b"")


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("make", [with_code_inside, as_hdf5, of_no_layer])
def test_registered_file_that_safe_mode_refuses_is_refused(artifacts, tmp_path, monkeypatch, make):
    monkeypatch.chdir(tmp_path)
    (artifacts / MODEL_FILE).unlink()
    make(artifacts / MODEL_FILE)
    card = json.loads((artifacts / CARD_FILE).read_text())
    card["model_sha256"] = sha256_of(artifacts / MODEL_FILE)
    (artifacts / CARD_FILE).write_text(json.dumps(card))
    with pytest.raises(ModelError, match="is not a model that Keras loads in safe mode: ") as error:
        load_classifier(artifacts)
    assert "\n" not in error.value.message
    assert not (tmp_path / "owned").exists()


def test_folder_without_a_card_is_refused(artifacts):
    (artifacts / CARD_FILE).unlink()
    with pytest.raises(ModelError, match="is not a sealed model of sparkcnn: it has no model.json"):
        load_classifier(artifacts)


def test_folder_without_weights_is_refused(artifacts):
    (artifacts / MODEL_FILE).unlink()
    with pytest.raises(ModelError, match=MODEL_FILE):
        load_classifier(artifacts)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"], ids=["empty", "half", "list", "no-keys"])
def test_damaged_card_is_refused(artifacts, text):
    (artifacts / CARD_FILE).write_text(text)
    with pytest.raises(ModelError):
        load_classifier(artifacts)


# --- in the folder that MLflow stores


def test_model_opens_with_the_code_that_came_with_it(model_folder, classifier, sealed):
    opened = open_sealed(model_folder)
    _, card = sealed
    assert type(opened).__module__ == f"{card.code_package}.predict"
    images = noise(3)
    np.testing.assert_array_equal(opened.predict_pixels(images), classifier.predict_pixels(images))


def test_folder_of_another_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match="is not a sealed model"):
        open_sealed(tmp_path)


ELSEWHERE = """
import importlib, importlib.util, json, sys
from pathlib import Path

# An editable install of this project is found from anywhere: remove its finder.
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in f"{finder} {type(finder).__module__}"]
for name in ("cnnlib", "pipelines", "jobs"):
    assert importlib.util.find_spec(name) is None, name

folder, images = Path(sys.argv[1]), Path(sys.argv[2])
artifacts = folder / "artifacts" / "sealed"
sys.path.append(str(folder / "code"))
package = json.loads((artifacts / "model.json").read_text())["code_package"]
classifier = importlib.import_module(f"{package}.predict").load_classifier(artifacts)
contents = [path.read_bytes() for path in sorted(images.iterdir())]
pixels, _ = classifier.to_pixels(contents)
print(json.dumps(classifier.embed_pixels(pixels)[1].tolist()))
print(classifier.predict_images(contents)[["label", "probability", "error"]].to_json(orient="values"))
print(sorted({name.split(".")[0] for name in sys.modules} & {"cnnlib", "pipelines", "jobs", "mlflow", "pyspark"}))
"""


def test_model_predicts_where_this_project_is_not_installed(model_folder, classifier, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    contents = [encode_png(image) for image in noise(3)] + [b"no image"]
    for number, content in enumerate(contents):
        (images / f"{number}.png").write_bytes(content)
    ended = subprocess.run(
        [sys.executable, "-I", "-c", ELSEWHERE, model_folder, images],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith("COV")},
        check=False,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    embeddings, rows, loaded = ended.stdout.splitlines()
    # No other layer was named before in that process: the embedding's must not be named like one of the model's.
    _, expected_embeddings = classifier.embed_pixels(classifier.to_pixels(contents)[0])
    np.testing.assert_allclose(json.loads(embeddings), expected_embeddings, atol=1e-5)
    expected = classifier.predict_images(contents)
    received = json.loads(rows)
    assert [row[0] for row in received] == expected["label"].tolist()
    assert [row[1] for row in received[:3]] == pytest.approx(expected["probability"].tolist()[:3], abs=1e-6)
    assert [row[2] for row in received[:3]] == [None] * 3
    assert received[3][2].startswith("not_an_image: ")
    assert loaded == "[]"


def test_limits_of_the_training_set_are_those_of_the_model(model, tmp_path):
    wide = encode_png(noise(1, shape=(40, 50, 3))[0])
    cut = encoded(Image.fromarray(noise(1, shape=(64, 64, 3))[0]), "JPEG")[:2000]
    for limits, expected in (
        (Limits(), [None, "truncated"]),
        # The JPEG is unpacked at half its size.
        (Limits(max_pixels=1999), ["too_many_pixels", "truncated"]),
        (Limits(max_pixels=1023), ["too_many_pixels", "too_many_pixels"]),
        (Limits(max_pixels=2000, keep_truncated=True), [None, None]),
        (Limits(min_side=41, keep_truncated=True), ["too_small", None]),
    ):
        folder = tmp_path / str(limits)
        seal(model, folder, image=SPEC, classes=CLASSES, fingerprint="f" * 64, limits=limits)
        loaded = load_classifier(folder / SEALED)
        assert loaded.card.limits == limits
        errors = loaded.predict_images([wide, cut])["error"].tolist()
        assert [error and error.split(":")[0] for error in errors] == expected
