"""Compare a challenger with the champion on the same images, gate by gate.

A new gate goes in three places:
1. `GateSettings` in `cnnlib/config/evaluate.py`: its limit. null leaves the gate out.
2. `cnnlib/evaluation/gates.py`: a function that compares figures with the limit and returns a `Gate`.
3. `GateChecks._check_gates` below: a row with the limit and the call that measures the figures.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from pyspark.sql import DataFrame, SparkSession

from cnnlib.config import PromoteSettings
from cnnlib.evaluation.gates import Gate, accuracy_gate, better_gate, parity_gate, recall_gate, speed_gate
from cnnlib.evaluation.result import Evaluation
from cnnlib.image_set.contract import ImageSet
from pipelines.evaluate.image_predictions import compute_evaluation, count_discordant, image_predictions
from pipelines.evaluate.parity_and_speed import measure_difference_from_trained, measure_speeds, read_golden_images
from pipelines.spark.progress import Progress
from pipelines.tracking.model_uris import ModelVersion
from pipelines.tracking.registry import FetchedModel, fetch_model
from pipelines.tracking.tracker import Tracker


@dataclass(frozen=True)
class _EvaluatedModel:
    """A model, its predictions in Spark's memory, and the evaluation that was computed from them."""

    model: FetchedModel
    predicted_rows: DataFrame
    evaluation: Evaluation


@dataclass(frozen=True)
class GateChecks:
    """The gate checks of one promotion. `store` is the URI of the MLflow store that has both models."""

    spark: SparkSession
    image_set: ImageSet
    settings: PromoteSettings
    store: str
    progress: Progress

    def run(self, challenger: ModelVersion, champion: ModelVersion | None) -> tuple[Evaluation, tuple[Gate, ...]]:
        """Return the challenger's evaluation and the gates, passed or not.

        Without a champion, only the gate that needs none is checked: parity. Raises ModelError if one of the two
        models cannot be downloaded or does not take the images of the set.
        """
        with ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="sparkcnn-gates-")))
            versions = [challenger] if champion is None else [challenger, champion]
            models = [fetch_model(version.uri, folder / version.version) for version in versions]
            # Check both before the first evaluation, which may take long.
            for model in models:
                self.image_set.check_fits(model.card.image)
                self.image_set.check_classes(model.card.classes)
            new, *old = [self._evaluate(model, stack) for model in models]
            return new.evaluation, self._check_gates(challenger.run_id, new, old[0] if old else None)

    def _evaluate(self, model: FetchedModel, stack: ExitStack) -> _EvaluatedModel:
        """Evaluate a model. Its predictions stay in Spark's memory until `stack` is closed."""
        split, options = self.settings.data.split, self.settings.evaluate
        predicted_rows = stack.enter_context(
            image_predictions(self.spark, self.image_set, split, model, options.corruptions, self.progress)
        )
        evaluation = compute_evaluation(predicted_rows, self.image_set, split, model, options)
        return _EvaluatedModel(model, predicted_rows, evaluation)

    def _check_gates(
        self, run_id: str | None, challenger: _EvaluatedModel, champion: _EvaluatedModel | None
    ) -> tuple[Gate, ...]:
        """Check every gate that has a limit, in the order of the rows. `run_id` is the run of the challenger."""
        limits = self.settings.gates
        images = read_golden_images(self.image_set, self.settings.data.split)
        checks: list[tuple[float | None, Callable[[float], Gate]]] = []
        if champion is not None:
            checks = [
                (limits.max_accuracy_loss, partial(accuracy_gate, champion.evaluation, challenger.evaluation)),
                (limits.max_recall_loss, partial(recall_gate, champion.evaluation, challenger.evaluation)),
                (limits.better, partial(_check_better, champion, challenger)),
                (limits.min_speed, partial(self._check_speed, champion, challenger, images)),
            ]
        checks.append((limits.parity, partial(self._check_parity, run_id, challenger, images)))
        return tuple(check(limit) for limit, check in checks if limit is not None)

    def _check_speed(
        self, champion: _EvaluatedModel, challenger: _EvaluatedModel, images: np.ndarray, least: float
    ) -> Gate:
        self.progress.say("measure the speed of both")
        speeds = measure_speeds(self.spark, champion.model, challenger.model, images)
        return speed_gate(speeds.champion, speeds.challenger, speeds.ratio, least)

    def _check_parity(self, run_id: str | None, challenger: _EvaluatedModel, images: np.ndarray, most: float) -> Gate:
        self.progress.say("compare the registered model with the trained one")
        difference = None
        if run_id:
            difference = measure_difference_from_trained(Tracker(run_id, "", self.store), challenger.model, images)
        return parity_gate(difference, most)


def _check_better(champion: _EvaluatedModel, challenger: _EvaluatedModel, level: float) -> Gate:
    return better_gate(*count_discordant(champion.predicted_rows, challenger.predicted_rows), level)
