# Databricks notebook source
# MAGIC %md
# MAGIC # Score: images and the champion to predictions
# MAGIC
# MAGIC This notebook scores images with the version that has the alias champion in the registry, in Spark tasks. Every
# MAGIC row of the input gets one row of the predictions. For an image that cannot be decoded, that row has an error. An
# MAGIC MLflow run keeps the counts.

# COMMAND ----------

from cnnlib.config import PredictionsOutputSettings, ScoreInputSettings, ScoreSettings, TrackingSettings
from cnnlib.image_set import open_image_set
from pipelines.evaluate import accuracy
from pipelines.notebook import widget_values
from pipelines.score import score
from pipelines.spark import spark_session

values = widget_values(
    globals().get("dbutils"),
    {
        "model": "models:/mnist-lenet@champion",
        "input_path": "sparkcnn_demo/mnist",
        "split": "test",
        "output_path": "sparkcnn_demo/predictions",
        "experiment": "sparkcnn-demo",
    },
)

# COMMAND ----------

settings = ScoreSettings(
    model=values["model"],
    input=ScoreInputSettings(path=values["input_path"], split=values["split"]),
    output=PredictionsOutputSettings(path=values["output_path"], overwrite=True),
    tracking=TrackingSettings(experiment=values["experiment"]),
)
spark = spark_session("sparkcnn score")
predictions = score(spark, settings)

# COMMAND ----------

# MAGIC %md
# MAGIC ## The result
# MAGIC
# MAGIC rows = scored + failed. The accuracy comes from a join of the predictions with the labels.

# COMMAND ----------

print(predictions.counts, predictions.model)
test_accuracy = accuracy(spark, predictions, open_image_set(values["input_path"]), values["split"])
print(f"accuracy on {values['split']}: {test_accuracy:.4f}")

# COMMAND ----------

spark.read.parquet(*predictions.paths()).select("path", "label_name", "probability", "error").show(5, truncate=40)
