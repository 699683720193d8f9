# Databricks notebook source
# MAGIC %md
# MAGIC # Evaluate: how good is the champion?
# MAGIC
# MAGIC This notebook compares the predictions of a registered model with the labels of an image set, in Spark tasks.
# MAGIC The MLflow run has the metrics, the figures, and `evaluation/report.html`, one page with all of them. To make
# MAGIC another version the champion if it is good enough, see `pipelines.evaluate.promote`.

# COMMAND ----------

from cnnlib.config import EvaluateSettings, LabelledDataSettings, TrackingSettings
from pipelines.evaluate import evaluate
from pipelines.notebook import widget_values
from pipelines.spark import spark_session

values = widget_values(
    globals().get("dbutils"),
    {
        "model": "models:/mnist-lenet@champion",
        "data_path": "sparkcnn_demo/mnist",
        "split": "test",
        "experiment": "sparkcnn-demo",
    },
)

# COMMAND ----------

settings = EvaluateSettings(
    model=values["model"],
    data=LabelledDataSettings(path=values["data_path"], split=values["split"]),
    tracking=TrackingSettings(experiment=values["experiment"]),
)
evaluated = evaluate(spark_session("sparkcnn evaluate"), settings)

# COMMAND ----------

# MAGIC %md
# MAGIC ## The result

# COMMAND ----------

for name, value in evaluated.evaluation.metrics().items():
    print(f"{name:<28} {value:.4f}")
print(f"report: {evaluated.report}")
