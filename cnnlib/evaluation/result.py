"""The result of an evaluation, as its files, tables and page show it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cnnlib.evaluation.metrics import Confusion, Reliability
from cnnlib.image_set.contract import ImageSet
from cnnlib.predictions.contract import ScoredWith

TOP_K = 5


@dataclass(frozen=True)
class Mistake:
    """An image with a wrong prediction: names of both classes, their probabilities, and a thumbnail."""

    path: str
    true: str
    predicted: str
    probability: float
    true_probability: float
    picture: bytes


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on a split of an image set.

    - `log_loss`: the mean of -ln(probability of the true class), over the images with a prediction. Their number is
      `reliability.counts.sum()`.
    - `top_5_accuracy`: None if there are at most five classes.
    - `robustness`: the accuracy under each corruption.
    - `failed_by_code`: the number of images without a prediction, by error code.
    - `mistakes`: the images with the lowest probability of the true class.
    """

    model: ScoredWith
    image_set: ImageSet
    split: str
    confusion: Confusion
    reliability: Reliability
    log_loss: float
    top_5_accuracy: float | None
    robustness: Mapping[str, float] = field(default_factory=dict)
    failed_by_code: Mapping[str, int] = field(default_factory=dict)
    mistakes: tuple[Mistake, ...] = ()

    @property
    def accuracy(self) -> float:
        """Fraction of all images that are right. An image without a prediction is wrong."""
        return self.confusion.accuracy

    def metrics(self) -> dict[str, float]:
        """Return every figure that is one number, under its name in the MLflow run."""
        top = {} if self.top_5_accuracy is None else {f"top_{TOP_K}_accuracy": self.top_5_accuracy}
        return {
            "rows": self.confusion.rows,
            "failed": int(self.confusion.failed.sum()),
            "accuracy": self.accuracy,
            **top,
            "log_loss": self.log_loss,
            "expected_calibration_error": self.reliability.error,
            **self.confusion.averages(),
            **{f"accuracy_under_{name}": value for name, value in self.robustness.items()},
        }

    def as_dict(self) -> dict[str, Any]:
        """Return the content of `evaluation.json`: the metrics, and the counts that they were computed from."""
        confusion = self.confusion
        per_class = ("support", "predicted", "precision", "recall", "f1")
        columns = zip(*(getattr(confusion, name).tolist() for name in per_class), strict=True)
        pairs = zip(*confusion.counts.nonzero(), strict=True)
        return {
            "model": self.model.as_dict(),
            "image_set": {"path": self.image_set.folder.uri, "fingerprint": self.image_set.fingerprint},
            "split": self.split,
            # JSON cannot write NaN.
            "metrics": {name: value if math.isfinite(value) else None for name, value in self.metrics().items()},
            "failed_by_code": dict(self.failed_by_code),
            "classes": [
                {"name": name, **dict(zip(per_class, values, strict=True))}
                for name, values in zip(confusion.classes, columns, strict=True)
            ],
            "confusion": [
                {
                    "true": confusion.classes[true],
                    "predicted": confusion.classes[predicted],
                    "images": int(confusion.counts[true, predicted]),
                }
                for true, predicted in pairs
            ],
            "reliability": {name: values.tolist() for name, values in vars(self.reliability).items()},
            "mistakes": [
                {name: value for name, value in vars(mistake).items() if name != "picture"} for mistake in self.mistakes
            ],
        }
