# Databricks notebook source
# MAGIC %md
# MAGIC # Ingest: images to an image set
# MAGIC
# MAGIC This notebook reads a collection of images with Spark and writes an image set: Parquet files, and a
# MAGIC `dataset.json` that counts every image found. The widgets above choose the source. By default it is MNIST,
# MAGIC which comes with sparkcnn. For class folders (`DIR/CLASS/**/*.jpg`), set `source_format` to `image_folder`, and
# MAGIC fill in the path and the size.

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
# MAGIC These classes define the settings of `sparkcnn ingest --help` too. They check types and refuse unknown names.

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
# MAGIC An image that cannot be read becomes a row of the rejects. It never stops the job.

# COMMAND ----------

spark = spark_session("sparkcnn ingest")
image_set = ingest(spark, settings)

# COMMAND ----------

# MAGIC %md
# MAGIC ## The result
# MAGIC
# MAGIC found = kept + duplicate + rejected

# COMMAND ----------

print(image_set.counts)
print({name: split.rows for name, split in image_set.splits.items()})
print("classes:", *image_set.classes)
print("fingerprint:", image_set.fingerprint)

# COMMAND ----------

spark.read.parquet(*image_set.files("train")).select("image_id", "path", "label").show(5, truncate=20)
