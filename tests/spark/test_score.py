"""Score images with a registered model: every row of the input gets a row in the predictions."""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import duckdb
import mlflow
import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from cnnlib.config import (
    ImageSetOutputSettings,
    ImageSettings,
    IngestSettings,
    PredictionSettings,
    PredictionsOutputSettings,
    ScoreInputSettings,
    ScoreSettings,
    SourceSettings,
)
from cnnlib.errors import ImageSetError, LimitError, ModelError, OutputExistsError
from cnnlib.image_set.contract import ImageSet, raw_pixels
from cnnlib.predictions.contract import Predictions
from cnnlib.sealed.seal import open_sealed
from jobs import score as job
from pipelines.evaluate.flow import accuracy
from pipelines.ingest.flow import ingest
from pipelines.score import worker_model
from pipelines.score.flow import score
from pipelines.score.worker_model import ship_model, worker_classifier
from pipelines.sources.image_set import images_of_set
from pipelines.spark.tasks import run_on_partitions
from pipelines.tracking.registry import SHA256, fetch_model
from pipelines.tracking.store import connect
from pipelines.tracking.tags import tag_key
from tests.conftest import TEST_DIGITS, TRAIN_DIGITS, write_photos
from tests.spark.conftest import Trained
from tests.unit.image_sets import write_image_set


@pytest.fixture(scope="module")
def predictions(spark: SparkSession, trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Predictions:
    return score(spark, settings(trained, tmp_path_factory.mktemp("score") / "out"))


def settings(trained: Trained, output: Path, model: str = "models:/digits@champion", **more: object) -> ScoreSettings:
    more.setdefault("input", ScoreInputSettings(path=trained.image_set.folder.uri))
    return ScoreSettings(
        model=model, output=PredictionsOutputSettings(path=str(output)), tracking=trained.tracking, **more
    )


def rows_of(predictions: Predictions) -> pd.DataFrame:
    return pd.read_parquet(f"{predictions.path}/predictions")


@pytest.mark.main_path
def test_every_row_has_the_prediction_of_the_model(trained: Trained, predictions: Predictions, tmp_path: Path) -> None:
    test = pd.concat(pd.read_parquet(url) for url in trained.image_set.files("test")).sort_values("image_id")
    connect(trained.tracking)
    classifier = open_sealed(fetch_model("models:/digits@champion", tmp_path).folder)
    pixels = np.frombuffer(b"".join(test.image), np.uint8).reshape(-1, 28, 28, 1)
    probabilities = classifier.predict_pixels(pixels)
    rows = rows_of(predictions).sort_values("image_id")
    assert rows.image_id.tolist() == test.image_id.tolist()
    assert rows.path.tolist() == test.path.tolist()
    assert rows.label.tolist() == probabilities.argmax(axis=1).tolist()
    assert rows.label_name.tolist() == [str(label) for label in rows.label]
    np.testing.assert_allclose(rows.probability, probabilities.max(axis=1), atol=1e-5)
    assert rows.error.isna().all()


@pytest.mark.main_path
def test_every_row_has_model_name_version_and_hash(trained: Trained, predictions: Predictions, tmp_path: Path) -> None:
    rows = rows_of(predictions)
    connect(trained.tracking)
    folder = fetch_model(f"models:/digits/{trained.model.version}", tmp_path).folder
    weights = hashlib.sha256((folder / "artifacts/sealed/model.keras").read_bytes()).hexdigest()
    assert set(zip(rows.model_name, rows.model_version, rows.model_sha256, strict=True)) == {
        ("digits", trained.model.version, weights)
    }
    assert rows.scored_at.nunique() == 1


def test_drift_compares_predicted_with_trained_classes(trained: Trained, predictions: Predictions) -> None:
    stability = predictions.drift
    assert stability is not None
    train = np.array(trained.image_set.split("train").class_counts)
    predicted = rows_of(predictions).label.value_counts(normalize=True).reindex(range(10), fill_value=0)
    np.testing.assert_allclose(stability.expected, train / train.sum())
    np.testing.assert_allclose(stability.predicted, predicted)
    np.testing.assert_allclose(
        stability.index, ((predicted - train / train.sum()) * np.log(predicted * train.sum() / train)).sum()
    )
    connect(trained.tracking)
    sealed = open_sealed(fetch_model("models:/digits@champion", Path(predictions.path).parent).folder)
    val = pd.concat(pd.read_parquet(url) for url in trained.image_set.files("val"))
    pixels = np.frombuffer(b"".join(val.image), np.uint8).reshape(-1, 28, 28, 1)
    shares = np.histogram(sealed.predict_pixels(pixels).max(axis=1), 10, (0, 1))[0] / len(val)
    np.testing.assert_allclose(sealed.card.confidence_shares, shares)


@pytest.mark.main_path
def test_summary_counts_add_up(predictions: Predictions) -> None:
    summary = json.loads(Path(predictions.path, "summary.json").read_text())
    assert summary["counts"] == {"rows": TEST_DIGITS, "scored": TEST_DIGITS, "failed": 0}
    assert sum(file["rows"] for file in summary["files"]) == TEST_DIGITS
    assert summary["model"] == {
        "name": "digits",
        "version": predictions.model.version,
        "sha256": predictions.model.sha256,
    }
    assert summary["complete"] is True


def test_run_of_the_scoring_names_model_input_and_counts(trained: Trained, predictions: Predictions) -> None:
    connect(trained.tracking)
    run = mlflow.MlflowClient().get_run(predictions.mlflow_run)
    assert run.info.status == "FINISHED"
    stability = predictions.drift
    assert stability is not None
    assert run.data.metrics | {"images_per_second": 0} == {
        "rows": TEST_DIGITS,
        "scored": TEST_DIGITS,
        "failed": 0,
        "images_per_second": 0,
        "stability_classes": stability.index,
        "stability_confidence": stability.confidence,
    }
    assert run.data.metrics["images_per_second"] == pytest.approx(TEST_DIGITS / predictions.seconds)
    tags = {name: value for name, value in run.data.tags.items() if name.startswith("sparkcnn_")}
    assert tags == {
        "sparkcnn_model_name": "digits",
        "sparkcnn_model_version": trained.model.version,
        "sparkcnn_model_sha256": predictions.model.sha256,
        "sparkcnn_predictions": predictions.path,
    }
    (read,) = run.inputs.dataset_inputs
    assert read.dataset.digest == trained.image_set.fingerprint[:36]
    assert run.data.params["model"] == "models:/digits@champion"
    assert json.loads(Path(predictions.path, "summary.json").read_text())["mlflow_run"] == predictions.mlflow_run


def test_duckdb_reads_the_predictions_alone(predictions: Predictions) -> None:
    counts = duckdb.sql(f"SELECT count(*) FROM '{predictions.path}/predictions/*.parquet'").fetchall()
    assert counts == [(TEST_DIGITS,)]


def test_accuracy_equals_pandas(spark: SparkSession, trained: Trained, predictions: Predictions) -> None:
    test = pd.concat(pd.read_parquet(url) for url in trained.image_set.files("test"))
    joined = test.merge(rows_of(predictions), on="image_id", suffixes=("_true", "_predicted"))
    expected = (joined.label_true == joined.label_predicted).mean()
    assert accuracy(spark, predictions, trained.image_set, "test") == pytest.approx(expected)
    assert expected > 0.6


def test_accuracy_of_another_split_is_refused(spark: SparkSession, trained: Trained, predictions: Predictions) -> None:
    with pytest.raises(ModelError, match="score that split"):
        accuracy(spark, predictions, trained.image_set, "val")


def test_all_splits_can_be_scored(spark: SparkSession, trained: Trained, tmp_path: Path) -> None:
    source = ScoreInputSettings(path=trained.image_set.folder.uri, split="all")
    result = score(spark, settings(trained, tmp_path / "out", input=source))
    assert result.counts["rows"] == trained.image_set.counts.kept


def test_raw_source_gives_the_same_predictions(
    spark: SparkSession, trained: Trained, predictions: Predictions, digits_idx: Path, tmp_path: Path
) -> None:
    source = ScoreInputSettings(format="idx", path=str(digits_idx))
    result = score(spark, settings(trained, tmp_path / "out", input=source))
    assert result.counts == {"rows": TRAIN_DIGITS + TEST_DIGITS, "scored": TRAIN_DIGITS + TEST_DIGITS, "failed": 0}
    both = rows_of(result).merge(rows_of(predictions), on=["image_id", "path"])
    assert len(both) == TEST_DIGITS
    assert (both.label_x == both.label_y).all()
    np.testing.assert_allclose(both.probability_x, both.probability_y, atol=1e-6)


def test_table_without_rows_gives_predictions_without_rows(
    spark: SparkSession, trained: Trained, tmp_path: Path
) -> None:
    spark.createDataFrame([], "path string, content binary").write.parquet(str(tmp_path / "table"))
    source = ScoreInputSettings(format="table", path=str(tmp_path / "table"))
    assert score(spark, settings(trained, tmp_path / "out", input=source)).counts["rows"] == 0


@pytest.mark.main_path
def test_unreadable_image_gets_an_error_others_a_prediction(
    spark: SparkSession, trained: Trained, tmp_path: Path
) -> None:
    photos = write_photos(tmp_path / "photos", per_class=20)
    (photos / "dark" / "bad.jpg").write_text("no image")
    (photos / "dark" / "empty.jpg").write_bytes(b"")
    # Scoring keeps copies, because every file is a row of the input.
    (photos / "light" / "copy.jpg").write_bytes((photos / "dark" / "001.jpg").read_bytes())
    source = ScoreInputSettings(format="image_folder", path=str(photos))
    result = score(spark, settings(trained, tmp_path / "out", input=source))
    assert result.counts == {"rows": 43, "scored": 41, "failed": 2}
    assert result.failed_by_code == {"empty_file": 1, "not_an_image": 1}
    rows = rows_of(result).set_index("path")
    failed = rows[rows.error.notna()]
    assert sorted(failed.index) == ["dark/bad.jpg", "dark/empty.jpg"]
    assert failed[["label", "label_name", "probability"]].isna().all(axis=None)
    # Other images in the batch may change the last bit of a float32 (0.14429192 and 0.14429190 were seen).
    copy, original = (rows.loc[path].probability for path in ("light/copy.jpg", "dark/001.jpg"))
    assert copy == pytest.approx(original, rel=1e-6)


def test_too_many_failures_end_with_status_3(spark: SparkSession, trained: Trained, tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", per_class=2)
    (photos / "dark" / "bad.jpg").write_text("no image")
    source = ScoreInputSettings(format="image_folder", path=str(photos))
    limits = PredictionSettings(max_failed_fraction=0.1)
    with pytest.raises(LimitError, match=r"1 of 5 rows have no prediction \(1 not_an_image\)") as error:
        score(spark, settings(trained, tmp_path / "out", input=source, score=limits))
    assert error.value.exit_status == 3
    assert pd.read_parquet(tmp_path / "out" / "predictions").label.notna().sum() == 4
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["complete"] is False
    run = mlflow.MlflowClient(trained.tracking.uri).get_run(summary["mlflow_run"])
    assert (run.info.status, run.data.metrics["failed_not_an_image"]) == ("FAILED", 1)


def test_job_ends_with_status_3_after_its_table(
    spark: SparkSession,
    trained: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    photos = write_photos(tmp_path / "photos", per_class=2)
    (photos / "dark" / "bad.jpg").write_text("no image")
    monkeypatch.setattr("pipelines.spark.session.job_session", lambda name: nullcontext(spark))
    source = ["--input.format", "image_folder", "--input.path", str(photos)]
    places = ["--output.path", str(tmp_path / "out"), "--tracking.uri", str(trained.tracking.uri)]
    assert job.main(["--model", "models:/digits@champion", *source, *places, "--score.max_failed_fraction", "0.1"]) == 3
    said = capsys.readouterr()
    rows = {line.split("│")[1].strip(): line.split("│")[2].strip() for line in said.out.splitlines() if "│" in line}
    assert rows["scored"] == "5 rows = 4 scored + 1 failed (1 not_an_image)"
    assert rows["path"] == str(tmp_path / "out")
    assert "predicted against trained on" in said.out
    assert "1 of 5 rows have no prediction" in said.err

    # The predictions stay incomplete, even if the next run has no failures of its own.
    every_night = ["--score.mode", "incremental"]
    assert job.main(["--model", "models:/digits@champion", *source, *places, *every_night]) == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["complete"] is False


@pytest.mark.parametrize(
    ("image", "named"),
    [
        ({"height": 32, "width": 32}, r"\(32, 32, 1, 'stretch'\).*\(28, 28, 1, 'stretch'\)"),
        # The size fits, but the way of resizing does not.
        ({"resize": "fit_and_pad"}, r"\(28, 28, 1, 'fit_and_pad'\).*\(28, 28, 1, 'stretch'\)"),
    ],
)
def test_image_set_with_another_spec_is_refused(
    spark: SparkSession, trained: Trained, digits_idx: Path, tmp_path: Path, image: dict, named: str
) -> None:
    other: ImageSet = ingest(
        spark,
        IngestSettings(
            source=SourceSettings(format="idx", path=str(digits_idx)),
            image=ImageSettings(**image),
            output=ImageSetOutputSettings(path=str(tmp_path / "set")),
        ),
    )
    with pytest.raises(ModelError, match=named):
        score(spark, settings(trained, tmp_path / "out", input=ScoreInputSettings(path=other.folder.uri)))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("encoding", ["png", "jpeg"])
def test_encoded_image_set_is_decoded_by_the_model(
    spark: SparkSession, trained: Trained, digits_idx: Path, tmp_path: Path, encoding: str
) -> None:
    encoded = ingest(
        spark,
        IngestSettings(
            source=SourceSettings(format="idx", path=str(digits_idx)),
            image=ImageSettings(encoding=encoding),
            output=ImageSetOutputSettings(path=str(tmp_path / "set")),
        ),
    )
    result = score(spark, settings(trained, tmp_path / "out", input=ScoreInputSettings(path=encoded.folder.uri)))
    connect(trained.tracking)
    classifier = open_sealed(fetch_model("models:/digits@champion", tmp_path).folder)
    stored = pd.concat(pd.read_parquet(url) for url in encoded.files("test")).set_index("image_id").image
    rows = rows_of(result)
    expected = classifier.predict_images(stored.loc[rows.image_id].tolist())
    assert rows.label.tolist() == expected.label.tolist()
    np.testing.assert_allclose(rows.probability, expected.probability.astype(float), atol=1e-6)


def lose(file: Path) -> None:
    file.unlink()


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-50])


@pytest.mark.parametrize("damage", [lose, cut_off])
def test_damaged_image_set_is_reported_in_one_line(
    spark: SparkSession, trained: Trained, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    # Write only one file: a second task could still write its predictions after the first one fails.
    images, labels, splits = np.zeros((20, 28, 28, 1), np.uint8), [0] * 20, ["test"] * 20
    image_set = write_image_set(tmp_path / "set", images, labels, splits, classes=trained.image_set.classes, files=1)
    damaged = Path(image_set.folder.root)
    (part,) = image_set.split("test").files
    file = damaged / part.path
    damage(file)
    with pytest.raises(ImageSetError, match=f"^{file} cannot be read: .*; ingest the set again$"):
        score(spark, settings(trained, tmp_path / "out", input=ScoreInputSettings(path=str(damaged))))
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_existing_predictions_are_kept_without_overwrite(spark: SparkSession, trained: Trained, tmp_path: Path) -> None:
    first = score(spark, settings(trained, tmp_path / "out"))
    with pytest.raises(OutputExistsError):
        score(spark, settings(trained, tmp_path / "out"))
    again = settings(trained, tmp_path / "out")
    again = again.model_copy(update={"output": PredictionsOutputSettings(path=str(tmp_path / "out"), overwrite=True)})
    second = score(spark, again)
    assert {path.name for path in (tmp_path / "out" / "predictions").iterdir()} == {
        Path(file.path).name for file in second.files
    }
    assert not {file.path for file in first.files} & {file.path for file in second.files}


def test_worker_loads_the_model_once_for_all_its_tasks(spark: SparkSession, trained: Trained, tmp_path: Path) -> None:
    connect(trained.tracking)
    archive = ship_model(spark, fetch_model("models:/digits@champion", tmp_path / "model").folder)
    images = images_of_set(spark, trained.image_set, ["test"], 8)
    read = images.read

    def loads(batches, task, attempt):
        before = worker_model._loaded
        classifier = worker_classifier(archive)
        pixels = (raw_pixels(batch.column("content"), (28, 28, 1)) for batch in read(batches))
        rows = sum(len(classifier.predict_pixels(images)) for images in pixels)
        return os.getpid(), rows, int(worker_model._loaded is not before)

    tasks = pd.DataFrame(run_on_partitions(images.rows, loads), columns=["pid", "rows", "loads"])
    assert tasks.rows.sum() == TEST_DIGITS
    # There are more tasks than Python workers, and each worker loads the model at most once.
    assert tasks.pid.nunique() < len(tasks)
    assert tasks.groupby("pid").loads.sum().max() <= 1


def test_damaged_weights_are_refused_by_every_worker(spark: SparkSession, trained: Trained, tmp_path: Path) -> None:
    connect(trained.tracking)
    model = fetch_model("models:/digits@champion", tmp_path / "model")
    weights = model.folder / "artifacts/sealed/model.keras"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    # Change the card too: models are shipped by its hash, and the session already has the sound model.
    card = model.folder / "artifacts/sealed/model.json"
    card.write_text(card.read_text() + " ")
    archive = ship_model(spark, model.folder)
    with pytest.raises(ModelError, match="has SHA-256 .*, but .* was registered") as error:
        run_on_partitions(spark.range(2), lambda batches, task, attempt: worker_classifier(archive))
    assert "\n" not in error.value.message


def test_weights_must_match_the_hash_in_the_registry(trained: Trained, tmp_path: Path) -> None:
    connect(trained.tracking)
    client = mlflow.MlflowClient()
    tag = client.get_model_version("digits", "1").tags[tag_key(SHA256)]
    client.set_model_version_tag("digits", "1", tag_key(SHA256), "0" * 64)
    try:
        with pytest.raises(
            ModelError, match=f"weights of models:/digits/1 have SHA-256 {tag}, but {'0' * 64} was registered"
        ):
            fetch_model("models:/digits/1", tmp_path)
    finally:
        client.set_model_version_tag("digits", "1", tag_key(SHA256), tag)
