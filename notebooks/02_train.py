# Databricks notebook source
# MAGIC %md
# MAGIC # Train: an image set to a registered model
# MAGIC
# MAGIC This notebook trains a Keras model on an image set, which petastorm reads. One MLflow run keeps all settings,
# MAGIC the metrics, and a checkpoint of every epoch. The epoch with the best validation accuracy becomes a version of
# MAGIC the registered model.

# COMMAND ----------

from cnnlib.config import (
    DataSettings,
    FitSettings,
    ModelSettings,
    RegisterSettings,
    TrackingSettings,
    TrainSettings,
)
from cnnlib.image_set import open_image_set
from pipelines.notebook import widget_values
from pipelines.spark import spark_session
from pipelines.train import train

values = widget_values(
    globals().get("dbutils"),
    {
        "data_path": "sparkcnn_demo/mnist",
        "model": "lenet",
        "epochs": "3",
        "experiment": "sparkcnn-demo",
        "register_as": "mnist-lenet",
    },
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## The image set

# COMMAND ----------

image_set = open_image_set(values["data_path"])
print(image_set.image)
print({name: split.rows for name, split in image_set.splits.items()})

# COMMAND ----------

# MAGIC %md
# MAGIC ## Train

# COMMAND ----------

settings = TrainSettings(
    data=DataSettings(path=values["data_path"]),
    model=ModelSettings(name=values["model"]),
    train=FitSettings(epochs=values["epochs"]),
    tracking=TrackingSettings(experiment=values["experiment"]),
    register=RegisterSettings(name=values["register_as"], alias="champion"),
)
trained = train(spark_session("sparkcnn train"), settings)

# COMMAND ----------

# MAGIC %md
# MAGIC ## The result

# COMMAND ----------

for epoch, (loss, val_accuracy) in enumerate(
    zip(trained.history["loss"], trained.history["val_accuracy"], strict=True), start=1
):
    print(f"epoch {epoch}: loss {loss:.4f}, val accuracy {val_accuracy:.4f}")
print(f"best is epoch {trained.best_epoch}: {values['register_as']} version {trained.version}")
print(trained.run_url)
