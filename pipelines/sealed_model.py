"""What MLflow keeps inside a registered model and runs when it is loaded ("models from code").

It imports nothing of this project: where it runs, the project need not be installed. The code that it does need
travels beside it, see `cnnlib.sealed`.
"""

import importlib
import json
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

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Give `label, label_name, probability, probabilities, error` a row."""
        return self._classifier.predict_images(model_input["image"].tolist())


set_model(SealedModel())
