"""Images and a registered model -> predictions, every row accounted for."""

import json
import os
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from cnnlib.config import (
    ImageSetOutputSettings,
    ImageSettings,
    IngestSettings,
    PredictionsOutputSettings,
    ScoreInputSettings,
    ScoreSettings,
    ScoringSettings,
    SourceSettings,
)
from cnnlib.errors import LimitError, ModelError, OutputExistsError
from cnnlib.imageset import ImageSet
from cnnlib.predictions import Predictions
from cnnlib.sealed import open_sealed
from pipelines.evaluate import accuracy
from pipelines.ingest import ingest
from pipelines.prediction_udf import prediction_udf
from pipelines.published import read_split
from pipelines.registry import fetch_model
from pipelines.score import score, ship_model
from pipelines.tasks import run_on_partitions
from pipelines.tracking import connect
from tests.conftest import TEST_DIGITS, TRAIN_DIGITS, write_photos
from tests.spark.conftest import Trained


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


def test_every_row_has_the_prediction_that_the_model_gives(
    trained: Trained, predictions: Predictions, tmp_path: Path
) -> None:
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


def test_name_and_version_stand_in_every_row(trained: Trained, predictions: Predictions) -> None:
    rows = rows_of(predictions)
    assert set(zip(rows.model_name, rows.model_version, strict=True)) == {("digits", trained.model.version)}
    assert rows.scored_at.nunique() == 1


def test_summary_counts_add_up(predictions: Predictions) -> None:
    summary = json.loads(Path(predictions.path, "summary.json").read_text())
    assert summary["counts"] == {"rows": TEST_DIGITS, "scored": TEST_DIGITS, "failed": 0}
    assert sum(file["rows"] for file in summary["files"]) == TEST_DIGITS
    assert summary["model"] == {"name": "digits", "version": predictions.model_version}


def test_duckdb_reads_the_predictions_alone(predictions: Predictions) -> None:
    counts = duckdb.sql(f"SELECT count(*) FROM '{predictions.path}/predictions/*.parquet'").fetchall()
    assert counts == [(TEST_DIGITS,)]


def test_accuracy_is_that_of_pandas(spark: SparkSession, trained: Trained, predictions: Predictions) -> None:
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


def test_source_that_was_never_ingested_gives_the_same_predictions(
    spark: SparkSession, trained: Trained, predictions: Predictions, digits_idx: Path, tmp_path: Path
) -> None:
    source = ScoreInputSettings(format="idx", path=str(digits_idx))
    result = score(spark, settings(trained, tmp_path / "out", input=source))
    assert result.counts == {"rows": TRAIN_DIGITS + TEST_DIGITS, "scored": TRAIN_DIGITS + TEST_DIGITS, "failed": 0}
    both = rows_of(result).merge(rows_of(predictions), on=["image_id", "path"])
    assert len(both) == TEST_DIGITS
    assert (both.label_x == both.label_y).all()
    np.testing.assert_allclose(both.probability_x, both.probability_y, atol=1e-6)


def test_image_that_cannot_be_read_gets_an_error_and_the_others_a_prediction(
    spark: SparkSession, trained: Trained, tmp_path: Path
) -> None:
    photos = write_photos(tmp_path / "photos", per_class=20)
    (photos / "dark" / "bad.jpg").write_text("no image")
    (photos / "dark" / "empty.jpg").write_bytes(b"")
    # Scoring counts every file, copies too: each is a row of the input.
    (photos / "light" / "copy.jpg").write_bytes((photos / "dark" / "001.jpg").read_bytes())
    source = ScoreInputSettings(format="image_folder", path=str(photos))
    result = score(spark, settings(trained, tmp_path / "out", input=source))
    assert result.counts == {"rows": 43, "scored": 41, "failed": 2}
    assert result.failed_by_code == {"empty_file": 1, "not_an_image": 1}
    rows = rows_of(result).set_index("path")
    failed = rows[rows.error.notna()]
    assert sorted(failed.index) == ["dark/bad.jpg", "dark/empty.jpg"]
    assert failed[["label", "label_name", "probability"]].isna().all(axis=None)
    assert rows.loc["light/copy.jpg"].probability == rows.loc["dark/001.jpg"].probability


def test_more_failures_than_allowed_end_with_status_3_and_keep_the_others(
    spark: SparkSession, trained: Trained, tmp_path: Path
) -> None:
    photos = write_photos(tmp_path / "photos", per_class=2)
    (photos / "dark" / "bad.jpg").write_text("no image")
    source = ScoreInputSettings(format="image_folder", path=str(photos))
    limits = ScoringSettings(max_failed_fraction=0.1)
    with pytest.raises(LimitError, match=r"1 of 5 rows have no prediction \(1 not_an_image\)") as error:
        score(spark, settings(trained, tmp_path / "out", input=source, score=limits))
    assert error.value.exit_status == 3
    assert len(pd.read_parquet(tmp_path / "out" / "predictions")) == 5


def test_image_set_of_another_size_is_refused_and_both_sizes_named(
    spark: SparkSession, trained: Trained, digits_idx: Path, tmp_path: Path
) -> None:
    other: ImageSet = ingest(
        spark,
        IngestSettings(
            source=SourceSettings(format="idx", path=str(digits_idx)),
            image=ImageSettings(height=32, width=32),
            output=ImageSetOutputSettings(path=str(tmp_path / "set")),
        ),
    )
    with pytest.raises(ModelError, match=r"\(32, 32, 1\).*\(28, 28, 1\)"):
        score(spark, settings(trained, tmp_path / "out", input=ScoreInputSettings(path=other.folder.uri)))
    assert not (tmp_path / "out").exists()


def test_existing_predictions_are_kept_unless_overwriting_is_asked_for(
    spark: SparkSession, trained: Trained, tmp_path: Path
) -> None:
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
    model = fetch_model("models:/digits@champion", tmp_path / "model")
    archive = ship_model(spark, model)
    predict = prediction_udf(archive, (28, 28, 1))

    def loads(batches):
        from pipelines.prediction_udf import worker_classifier

        before = worker_classifier.cache_info().misses
        worker_classifier(archive)
        rows = sum(len(batch) for batch in batches)
        yield pd.DataFrame(
            {"pid": [os.getpid()], "rows": [rows], "loads": [worker_classifier.cache_info().misses - before]}
        )

    images = read_split(spark, trained.image_set, "test").repartition(8)
    tasks = images.mapInPandas(loads, "pid long, rows long, loads long").toPandas()
    assert (len(tasks), tasks.rows.sum()) == (8, TEST_DIGITS)
    # More tasks than workers: a worker that ran several has loaded the model for the first of them at most.
    assert tasks.pid.nunique() < 8
    assert tasks.groupby("pid").loads.sum().max() <= 1
    scored = images.select(predict(F.col("image")).alias("p")).select("p.*").toPandas()
    assert scored.error.isna().all()


def test_damaged_weights_are_refused_by_every_worker(spark: SparkSession, trained: Trained, tmp_path: Path) -> None:
    connect(trained.tracking)
    model = fetch_model("models:/digits@champion", tmp_path / "model")
    weights = model.folder / "artifacts/sealed/model.keras"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    # A card of another name, or the sound model that the session has already would be taken.
    card = model.folder / "artifacts/sealed/model.json"
    card.write_text(card.read_text() + " ")
    predict = prediction_udf(ship_model(spark, model), (28, 28, 1))
    images = read_split(spark, trained.image_set, "test").select(predict(F.col("image")).alias("p"))
    with pytest.raises(ModelError, match="has SHA-256 .*, registered was") as error:
        run_on_partitions(images, lambda batches, task, attempt: sum(batch.num_rows for batch in batches))
    assert "\n" not in error.value.message
