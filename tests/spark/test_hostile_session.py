"""A session that a notebook has set up otherwise: the same sets, trainings and predictions."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from cnnlib.config import (
    DataSettings,
    FitSettings,
    PredictionsOutputSettings,
    RegisterSettings,
    ScoreInputSettings,
    ScoreSettings,
    TrackingSettings,
    TrainSettings,
)
from pipelines.ingest.flow import ingest
from pipelines.score.flow import score
from pipelines.spark.session import with_settings
from pipelines.train.flow import train
from tests.conftest import write_photos
from tests.spark.ingests import settings_of
from tests.spark.test_score import rows_of

HOSTILE = {
    "spark.sql.session.timeZone": "Pacific/Auckland",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.caseSensitive": "true",
    "spark.sql.shuffle.partitions": "37",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "7",
    "spark.sql.files.maxPartitionBytes": "100000",
    "spark.sql.parquet.mergeSchema": "true",
    "spark.sql.parquet.filterPushdown": "false",
    "spark.sql.sources.partitionColumnTypeInference.enabled": "true",
    "spark.sql.mapKeyDedupPolicy": "EXCEPTION",
    "spark.sql.autoBroadcastJoinThreshold": "-1",
}
# Spark's own values of some of them, and our time zone.
DEFAULTS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.caseSensitive": "false",
    "spark.sql.shuffle.partitions": "200",
    "spark.sql.adaptive.enabled": "true",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "10000",
}


@pytest.fixture
def hostile(spark: SparkSession) -> Iterator[SparkSession]:
    with with_settings(spark, HOSTILE):
        yield spark
        # Nothing of ours stays behind.
        assert {name: spark.conf.get(name) for name in HOSTILE} == HOSTILE


def write_table(spark: SparkSession, photos: Path, table: Path) -> None:
    rows = spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(str(photos))
    rows.write.parquet(str(table))


def test_everything_is_the_same_in_a_hostile_session(
    spark: SparkSession, hostile: SparkSession, tmp_path: Path, new_store: Callable[[Path], str]
) -> None:
    photos = write_photos(tmp_path / "photos", per_class=30)
    write_table(spark, photos, tmp_path / "table")
    source = {"label_pattern": "([^/]+)/[^/]+$"}
    results = []
    losses: list[float] = []
    for number, settings in enumerate((DEFAULTS, HOSTILE)):
        folder = tmp_path / str(number)
        folder.mkdir()
        with with_settings(spark, settings):
            image_set = ingest(spark, settings_of("table", tmp_path / "table", folder / "set", source=source))
            uri = new_store(folder)
            model = train(
                spark,
                TrainSettings(
                    data=DataSettings(path=str(folder / "set")),
                    train=FitSettings(epochs=1, worker_batch_size=16, seed=1),
                    tracking=TrackingSettings(uri=uri, experiment="x"),
                    register=RegisterSettings(name="photos"),
                ),
            )
            predictions = score(
                spark,
                ScoreSettings(
                    model="models:/photos@champion",
                    input=ScoreInputSettings(path=str(tmp_path / "table"), format="table"),
                    output=PredictionsOutputSettings(path=str(folder / "predictions")),
                    tracking=TrackingSettings(uri=uri, experiment="x"),
                ),
            )
        rows = rows_of(predictions).sort_values("path", ignore_index=True)
        results.append((image_set.fingerprint, image_set.source_digest, rows.label.tolist()))
        losses += model.history["loss"]
    assert results[0] == results[1]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    # In another time zone, the table has not changed.
    again = ingest(hostile, settings_of("table", tmp_path / "table", tmp_path / "0" / "set", source=source))
    assert again.source_digest == results[0][1]
