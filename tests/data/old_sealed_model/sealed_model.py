"""What MLflow keeps inside a registered model and runs when it is loaded ("models from code").

It imports nothing of this project: where it runs, the project need not be installed. The code that it does need
travels beside it, see `cnnlib.sealed`.
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
    """Predicts a column `image` of encoded files, or of arrays (height, width, channels) uint8."""

    def load_context(self, context: Any) -> None:
        """Check and load the weights."""
        folder = Path(context.artifacts[ARTIFACT])
        package = json.loads((folder / "model.json").read_text())["code_package"]
        self._classifier = importlib.import_module(f"{package}.predict").load_classifier(folder)
        self._sql_nulls = importlib.import_module(f"{package}.sql_nulls")

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Give `label, label_name, probability, probabilities, error` a row."""
        rows = self._classifier.predict_images(model_input["image"].tolist())
        return self._sql_nulls.keep_nulls(rows) if _in_task_of_spark() else rows


def _in_task_of_spark() -> bool:
    pyspark = sys.modules.get("pyspark")
    return pyspark is not None and pyspark.TaskContext.get() is not None


set_model(SealedModel())
