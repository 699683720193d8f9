"""Ingests of a Delta table, by its path and by its name. test_delta.py runs this in another process.

FOLDER/jars has the jars of Delta Lake. Prints one line of JSON: the classes of each image set, with their images.
"""

import json
import sys
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from cnnlib.config import IngestSettings
from pipelines.ingest import ingest
from pipelines.spark import spark_session
from tests.conftest import write_photos

NAME = "photos"


def with_delta(folder: Path) -> SparkSession:
    """Start a session that has Delta Lake."""
    return spark_session(
        **{
            "spark.jars": ",".join(str(path) for path in sorted((folder / "jars").glob("*.jar"))),
            "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
            "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
            "spark.sql.warehouse.dir": str(folder / "warehouse"),
        }
    )


def classes_of(spark: SparkSession, source: str, output: Path) -> dict[str, int]:
    """Ingest a table, and return the number of images of each class."""
    image_set = ingest(
        spark,
        IngestSettings(
            source={"format": "table", "path": source},
            image={"height": 8, "width": 8},
            output={"path": str(output), "mode": "append"},
        ),
    )
    counts = zip(*(split.class_counts for split in image_set.splits.values()), strict=True)
    return dict(zip(image_set.classes, map(sum, counts), strict=True))


def main(folder: Path) -> dict[str, object]:
    spark = with_delta(folder)
    files = spark.read.format("binaryFile").option("recursiveFileLookup", "true")
    photos = files.load(str(write_photos(folder / "files", per_class=6)))
    photos = photos.withColumn("label", F.element_at(F.split("path", "/"), -2))
    table = str(folder / "lake" / NAME)
    photos.write.format("delta").save(table)
    found = {"as written": classes_of(spark, table, folder / "set")}
    # Delta keeps the files of deleted and rewritten rows.
    spark.sql(f"DELETE FROM delta.`{table}` WHERE path LIKE '%/dark/000%' OR path LIKE '%/dark/001%'")
    spark.sql(f"UPDATE delta.`{table}` SET label = 'bright' WHERE path LIKE '%/light/005%'")
    found["after changes"] = classes_of(spark, table, folder / "set")
    spark.sql(f"CREATE TABLE {NAME} USING delta LOCATION '{table}'")
    found["by name"] = classes_of(spark, NAME, folder / "named")
    spark.stop()
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
