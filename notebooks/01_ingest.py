# Databricks notebook source
# MAGIC %md
# MAGIC # Ingest: images to an image set
# MAGIC
# MAGIC Reads a collection of images with Spark and publishes an image set: Parquet files and a `dataset.json` that
# MAGIC accounts for every image found. The widgets above choose the source; the defaults take MNIST, which comes with
# MAGIC sparkcnn. For class folders (`DIR/CLASS/**/*.jpg`), set `source_format` to `image_folder` and fill in the path
# MAGIC and the size.

# COMMAND ----------

from cnnlib.config import (
    ImageSetOutputSettings,
    ImageSettings,
    IngestSettings,
    SourceSettings,
    SplitSettings,
)
from pipelines.ingest import ingest
from pipelines.notebook import widget_values
from pipelines.spark import spark_session

values = widget_values(
    globals().get("dbutils"),
    {
        "source_format": "mnist",
        "source_path": "",
        "height": "",
        "width": "",
        "val_fraction": "0.083333",
        "output_path": "sparkcnn_demo/mnist",
    },
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Settings
# MAGIC
# MAGIC The same classes as behind `sparkcnn ingest --help`: typed, and closed to names that do not exist.

# COMMAND ----------

settings = IngestSettings(
    source=SourceSettings(format=values["source_format"], path=values["source_path"] or None),
    image=ImageSettings(height=values["height"] or None, width=values["width"] or None),
    split=SplitSettings(val_fraction=values["val_fraction"]),
    output=ImageSetOutputSettings(path=values["output_path"], overwrite=True),
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Run
# MAGIC
# MAGIC An image that cannot be read becomes a row among the rejects, never the end of the job.

# COMMAND ----------

spark = spark_session("sparkcnn ingest")
image_set = ingest(spark, settings)

# COMMAND ----------

# MAGIC %md
# MAGIC ## What came out
# MAGIC
# MAGIC found = kept + duplicate + rejected

# COMMAND ----------

print(image_set.counts)
print({name: split.rows for name, split in image_set.splits.items()})
print("classes:", *image_set.classes)
print("fingerprint:", image_set.fingerprint)

# COMMAND ----------

spark.read.parquet(*image_set.files("train")).select("image_id", "path", "label").show(5, truncate=20)
