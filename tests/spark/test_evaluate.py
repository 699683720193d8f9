"""Evaluate a registered model: figures that equal scikit-learn's, the MLflow run, and refusals."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from sklearn import metrics as sklearn_metrics

from cnnlib.config import (
    EvaluateSettings,
    EvaluationExtrasSettings,
    ImageSetOutputSettings,
    ImageSettings,
    IngestSettings,
    LabelledDataSettings,
    SourceSettings,
    TrackingSettings,
)
from cnnlib.errors import ConfigError, ModelError
from cnnlib.evaluation.corruptions import CORRUPTIONS
from cnnlib.evaluation.result import Evaluation
from cnnlib.image_set.contract import ImageSet, open_image_set
from cnnlib.sealed.frozen.images import ImageSpec, decode_image
from cnnlib.sealed.seal import open_sealed
from pipelines.evaluate.flow import Evaluated, evaluate
from pipelines.ingest.flow import ingest
from pipelines.tracking.registry import TrainedOn, fetch_model, log_sealed_model
from pipelines.tracking.store import connect
from tests.conftest import TEST_DIGITS, write_photos
from tests.spark.conftest import Trained
from tests.unit.report_pages import Page

MISTAKES = 7


def settings_of(image_set: ImageSet, tracking: TrackingSettings, model: str, **asked: object) -> EvaluateSettings:
    return EvaluateSettings(
        model=model,
        data=LabelledDataSettings(path=image_set.folder.uri),
        evaluate=EvaluationExtrasSettings(**asked),
        tracking=tracking,
    )


@pytest.fixture(scope="module")
def evaluated(spark: SparkSession, trained: Trained) -> Evaluated:
    settings = settings_of(trained.image_set, trained.tracking, "models:/digits@champion", mistakes=MISTAKES)
    return evaluate(spark, settings)


@pytest.fixture(scope="module")
def evaluation(evaluated: Evaluated) -> Evaluation:
    return evaluated.evaluation


@pytest.fixture(scope="module")
def in_memory(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The rows of the test digits, with the predictions of the model in this process."""
    connect(trained.tracking)
    model = fetch_model("models:/digits@champion", tmp_path_factory.mktemp("model"))
    rows = pd.concat(pd.read_parquet(url) for url in trained.image_set.files("test")).reset_index(drop=True)
    pixels = np.frombuffer(b"".join(rows.image), np.uint8).reshape(-1, 28, 28, 1)
    classifier = open_sealed(model.folder)
    rows["pixels"] = list(pixels)
    rows["probabilities"] = list(classifier.predict_pixels(pixels))
    for name, damage in CORRUPTIONS.items():
        rows[name] = classifier.predict_pixels(damage(pixels, rows.image_id.tolist())).argmax(axis=1)
    return rows


@pytest.mark.main_path
def test_figures_equal_scikit_learn(evaluation: Evaluation, in_memory: pd.DataFrame) -> None:
    labels, probabilities = in_memory.label, np.stack(in_memory.probabilities)
    predicted = probabilities.argmax(axis=1)
    metrics = evaluation.metrics()
    assert metrics["rows"] == len(labels) == TEST_DIGITS
    assert 0.5 < evaluation.accuracy < 1
    assert evaluation.confusion.counts.tolist() == sklearn_metrics.confusion_matrix(labels, predicted).tolist()
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(labels, predicted),
        "top_5_accuracy": sklearn_metrics.top_k_accuracy_score(labels, probabilities, k=5),
        "log_loss": sklearn_metrics.log_loss(labels, probabilities),
        "macro_f1": sklearn_metrics.f1_score(labels, predicted, average="macro"),
        "weighted_precision": sklearn_metrics.precision_score(labels, predicted, average="weighted"),
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-5)


def test_calibration_error_follows_its_definition(evaluation: Evaluation, in_memory: pd.DataFrame) -> None:
    confidence = np.stack(in_memory.probabilities).max(axis=1)
    right = np.stack(in_memory.probabilities).argmax(axis=1) == in_memory.label
    bins = np.minimum((confidence * 15).astype(int), 14)
    gaps = [abs(right[bins == n].mean() - confidence[bins == n].mean()) * (bins == n).mean() for n in np.unique(bins)]
    assert evaluation.reliability.error == pytest.approx(sum(gaps), abs=1e-5)
    assert evaluation.reliability.counts.sum() == TEST_DIGITS


def test_robustness_is_the_accuracy_on_damaged_pixels(evaluation: Evaluation, in_memory: pd.DataFrame) -> None:
    expected = {name: (in_memory[name] == in_memory.label).mean() for name in CORRUPTIONS}
    assert evaluation.robustness == pytest.approx(expected)
    assert len(set(evaluation.robustness.values())) > 1


def test_worst_mistakes_come_first_with_their_pictures(evaluation: Evaluation, in_memory: pd.DataFrame) -> None:
    probabilities = np.stack(in_memory.probabilities)
    of_label = probabilities[np.arange(TEST_DIGITS), in_memory.label]
    wrong = probabilities.argmax(axis=1) != in_memory.label
    order = np.argsort(np.where(wrong, of_label, 2))[:MISTAKES]
    assert [mistake.path for mistake in evaluation.mistakes] == in_memory.path[order].tolist()
    for mistake, row in zip(evaluation.mistakes, order, strict=True):
        assert mistake.true == str(in_memory.label[row])
        assert mistake.predicted == str(probabilities[row].argmax())
        assert (mistake.probability, mistake.true_probability) == pytest.approx(
            (probabilities[row].max(), of_label[row]), abs=1e-5
        )
        assert (decode_image(mistake.picture, ImageSpec(28, 28, 1)) == in_memory.pixels[row]).all()


@pytest.mark.main_path
def test_run_keeps_metrics_files_and_inputs(trained: Trained, evaluated: Evaluated, tmp_path: Path) -> None:
    connect(trained.tracking)
    client = mlflow.MlflowClient()
    run = client.get_run(evaluated.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == evaluated.evaluation.metrics()
    assert run.data.tags["sparkcnn_model_version"] == trained.model.version
    (read,) = run.inputs.dataset_inputs
    assert read.dataset.digest == trained.image_set.fingerprint[:36]
    assert {tag.value for tag in read.tags} == {"evaluation"}
    folder = Path(client.download_artifacts(evaluated.run_id, "evaluation", str(tmp_path)))
    assert {path.name for path in folder.iterdir()} == {
        *("report.html", "evaluation.json", "confusion_matrix.svg", "reliability.svg")
    }
    kept = json.loads((folder / "evaluation.json").read_text())
    assert kept["metrics"] == evaluated.evaluation.metrics()
    assert sum(pair["images"] for pair in kept["confusion"]) == TEST_DIGITS
    assert kept["model"]["sha256"] == evaluated.evaluation.model.sha256
    report = Path(evaluated.report).read_text()
    assert report == (folder / "report.html").read_text()
    assert Page(report).rows["metrics"][0] == ["accuracy", f"{evaluated.evaluation.accuracy:.4f}"]
    assert report.count("<figure>") == MISTAKES


# --- a set with encoded images, and a model with other classes


@pytest.fixture(scope="module")
def photos(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    folder = tmp_path_factory.mktemp("photos")
    return ingest(
        spark,
        IngestSettings(
            source=SourceSettings(format="image_folder", path=str(write_photos(folder / "classes"))),
            image=ImageSettings(height=28, width=28, channels=1, encoding="png"),
            output=ImageSetOutputSettings(path=str(folder / "set")),
        ),
    )


@pytest.fixture(scope="module")
def by_shade(
    photos: ImageSet, tmp_path_factory: pytest.TempPathFactory, new_store: Callable[[Path], str]
) -> TrackingSettings:
    """A store with the model `shades`: it knows dark, light and a third class, in another order than the set."""
    import keras

    # A darker image is likelier dark. The labels of dark and light are 2 and 0 in the model, but 0 and 1 in the set.
    image = keras.Input((28, 28, 1), dtype="uint8")
    shade = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(image))
    dense = keras.layers.Dense(3)
    model = keras.Model(image, dense(shade))
    dense.set_weights([np.array([[10.0, 0.0, -10.0]]), np.array([-5.0, -9.0, 5.0])])
    tracking = TrackingSettings(uri=new_store(tmp_path_factory.mktemp("store")), experiment="shades")
    uri = connect(tracking)
    location = Path(uri.removeprefix("sqlite:///")).with_name("artifacts").as_uri()
    experiment = mlflow.create_experiment("registered", artifact_location=location)
    with mlflow.start_run(experiment_id=experiment):
        other = replace(photos, classes=("light", "emu", "dark"))
        log_sealed_model(model, TrainedOn.of(other), np.zeros((28, 28, 1), np.uint8), register_as="shades")
    return tracking


def test_classes_are_matched_by_name(spark: SparkSession, photos: ImageSet, by_shade: TrackingSettings) -> None:
    found = evaluate(spark, settings_of(photos, by_shade, "models:/shades/1", corruptions=[])).evaluation
    test = photos.splits["test"]
    assert found.confusion.classes == ("dark", "light", "emu")
    assert found.confusion.counts.tolist() == [[test.class_counts[0], 0, 0], [0, test.class_counts[1], 0], [0, 0, 0]]
    assert (found.accuracy, found.top_5_accuracy, dict(found.robustness), found.mistakes) == (1.0, None, {}, ())


def test_undecodable_image_counts_as_wrong(
    spark: SparkSession, photos: ImageSet, by_shade: TrackingSettings, tmp_path: Path
) -> None:
    damaged = open_image_set(str(shutil.copytree(photos.folder.root, tmp_path / "set")))
    file = Path(damaged.folder.root, damaged.split("test").files[0].path)
    table = pq.read_table(file)
    images = table["image"].to_pylist()
    images[0] = b"no image"
    pq.write_table(table.set_column(table.schema.get_field_index("image"), "image", pa.array(images)), file)
    evaluated = evaluate(spark, settings_of(damaged, by_shade, "models:/shades/1"))
    found, rows = evaluated.evaluation, damaged.splits["test"].rows
    assert (found.confusion.rows, found.confusion.right) == (rows, rows - 1)
    assert found.failed_by_code == {"not_an_image": 1}
    assert found.reliability.counts.sum() == rows - 1
    assert Page(Path(evaluated.report).read_text()).says("", "1 image could not be decoded and counts as wrong")


def test_unfitting_set_and_unknown_model_are_refused(
    spark: SparkSession, photos: ImageSet, by_shade: TrackingSettings, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(photos.folder.root, tmp_path / "set"))
    dataset = other / "dataset.json"
    dataset.write_text(dataset.read_text().replace('"stretch"', '"fit_and_pad"'))
    with pytest.raises(ModelError, match=r"\(28, 28, 1, 'fit_and_pad'\).*the model takes \(28, 28, 1, 'stretch'\)"):
        evaluate(spark, settings_of(open_image_set(str(other)), by_shade, "models:/shades/1"))
    with pytest.raises(ModelError, match="models:/nobody/1"):
        evaluate(spark, settings_of(photos, by_shade, "models:/nobody/1"))


def test_set_without_labels_is_refused(
    spark: SparkSession, photos: ImageSet, by_shade: TrackingSettings, tmp_path: Path
) -> None:
    unlabelled = ingest(
        spark,
        IngestSettings(
            source=SourceSettings(format="image_folder", path=photos.settings["source"]["path"], labels="none"),
            image=ImageSettings(height=28, width=28, channels=1),
            output=ImageSetOutputSettings(path=str(tmp_path / "set")),
        ),
    )
    with pytest.raises(ConfigError, match="has no labels to compare predictions with"):
        evaluate(spark, settings_of(unlabelled, by_shade, "models:/shades/1"))
