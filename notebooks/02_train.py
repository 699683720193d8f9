# Databricks notebook source
# MAGIC %md
# MAGIC # Train: an image set to a registered model
# MAGIC
# MAGIC Feeds the image set through petastorm into Keras. One MLflow run keeps every setting, the metrics and a
# MAGIC checkpoint of every epoch; the best epoch by validation accuracy becomes a version of the registered model.

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
# MAGIC ## What came out

# COMMAND ----------

for epoch, (loss, val_accuracy) in enumerate(
    zip(trained.history["loss"], trained.history["val_accuracy"], strict=True), start=1
):
    print(f"epoch {epoch}: loss {loss:.4f}, val accuracy {val_accuracy:.4f}")
print(f"best is epoch {trained.best_epoch}: {values['register_as']} version {trained.version}")
print(trained.run_url)
