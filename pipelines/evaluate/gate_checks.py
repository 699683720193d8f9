"""Challenger and champion on the same images: what each gate finds."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pyspark.sql import DataFrame, SparkSession

from cnnlib.config import PromoteSettings
from cnnlib.evaluation.gates import Gate, accuracy_gate, better_gate, parity_gate, recall_gate, speed_gate
from cnnlib.evaluation.result import Evaluation
from cnnlib.image_set.contract import ImageSet
from pipelines.evaluate.image_predictions import discordant, evaluation_of, image_predictions
from pipelines.evaluate.parity_and_speed import difference_from_trained, golden_images, speeds_side_by_side
from pipelines.spark.progress import Progress
from pipelines.tracking.aliases import Version
from pipelines.tracking.registry import RegisteredModel, fetch_model
from pipelines.tracking.tracker import Tracker


@dataclass(frozen=True)
class _Contender:
    """A model, what Spark holds of it, and what that comes to."""

    model: RegisteredModel
    predicted_rows: DataFrame
    evaluation: Evaluation


@dataclass(frozen=True)
class Contest:
    """Where it takes place: `store` is the URI of the MLflow store that both models come from."""

    spark: SparkSession
    image_set: ImageSet
    settings: PromoteSettings
    store: str
    progress: Progress

    def hold(self, challenger: Version, champion: Version | None) -> tuple[Evaluation, tuple[Gate, ...]]:
        """The challenger's evaluation, and the gates; without a champion those alone that need none.

        Raises ModelError where one of the two cannot be had, or does not take the set's images.
        """
        with ExitStack() as held:
            folder = Path(held.enter_context(TemporaryDirectory(prefix="sparkcnn-contest-")))
            versions = [challenger, *([champion] if champion else [])]
            models = [fetch_model(version.uri, folder / version.version) for version in versions]
            for model in models:
                self.image_set.check_fits(model.card.image)
            contenders = [self._assess(model, held) for model in models]
            gates = tuple(self._gates(challenger, contenders))
        return contenders[0].evaluation, gates

    def _assess(self, model: RegisteredModel, held: ExitStack) -> _Contender:
        split, asked = self.settings.data.split, self.settings.evaluate
        frame = image_predictions(self.spark, self.image_set, split, model, asked.corruptions, self.progress)
        predicted_rows = held.enter_context(frame)
        return _Contender(model, predicted_rows, evaluation_of(predicted_rows, self.image_set, split, model, asked))

    def _gates(self, version: Version, contenders: Sequence[_Contender]) -> Iterator[Gate]:
        asked, challenger = self.settings.gates, contenders[0]
        images = golden_images(self.image_set, self.settings.data.split)
        for champion in contenders[1:]:
            if asked.max_accuracy_loss is not None:
                yield accuracy_gate(champion.evaluation, challenger.evaluation, asked.max_accuracy_loss)
            if asked.max_recall_loss is not None:
                yield recall_gate(champion.evaluation, challenger.evaluation, asked.max_recall_loss)
            if asked.better is not None:
                yield better_gate(*discordant(champion.predicted_rows, challenger.predicted_rows), asked.better)
            if asked.min_speed is not None:
                self.progress.say("measure the speed of both")
                rates, ratio = speeds_side_by_side(self.spark, [one.model for one in contenders], images)
                yield speed_gate(rates[-1], rates[0], ratio, asked.min_speed)
        if asked.parity is not None:
            self.progress.say("compare the registered model with the trained one")
            trained = Tracker(version.run_id, "", self.store) if version.run_id else None
            difference = difference_from_trained(trained, challenger.model, images) if trained else None
            yield parity_gate(difference, asked.parity)
