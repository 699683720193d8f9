"""The code that MLflow keeps inside a registered model and runs when the model is loaded ("models from code").

It imports nothing of this project, because the project need not be installed where the model is used. The code that it
needs travels with the model, see `cnnlib.sealed.seal`.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

ARTIFACT = "sealed"


class SealedModel(PythonModel):
    """Predicts the column `image` of a table: encoded files, or arrays (height, width, channels) uint8."""

    def load_context(self, context: Any) -> None:
        """Load the model, and check its weights."""
        folder = Path(context.artifacts[ARTIFACT])
        package = json.loads((folder / "model.json").read_text())["code_package"]
        self._classifier = importlib.import_module(f"{package}.predict").load_classifier(folder)
        self._sql_nulls = importlib.import_module(f"{package}.sql_nulls")

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return one row per image: `label, label_name, probability, probabilities, error`."""
        rows = self._classifier.predict_images(model_input["image"].tolist())
        return self._sql_nulls.keep_nulls(rows) if _in_spark_task() else rows


def _in_spark_task() -> bool:
    pyspark = sys.modules.get("pyspark")
    return pyspark is not None and pyspark.TaskContext.get() is not None


set_model(SealedModel())
