"""A version of a registered model becomes champion where it passes every gate; a rollback takes that back."""

from dataclasses import dataclass

from pyspark.sql import SparkSession

from cnnlib.config import PromoteSettings, flatten
from cnnlib.errors import ConfigError, GateError
from cnnlib.evaluation.gates import Gate
from cnnlib.storage.folder import REPORT
from pipelines.evaluate.flow import keep_evaluation, open_labelled
from pipelines.evaluate.gate_checks import Contest
from pipelines.spark.progress import Progress
from pipelines.tracking.aliases import Version, find_version, move_alias, move_back, promotion_of
from pipelines.tracking.runs import image_set_of, model_run
from pipelines.tracking.store import connect
from pipelines.tracking.tracker import EVALUATION, as_tracking_error


@dataclass(frozen=True)
class Promotion:
    """What became of a promotion: which versions had the alias `before` and have it `now`, the gates, and the report.

    `challenger` is empty for a rollback.
    """

    model: str
    alias: str
    before: str | None
    now: str | None
    run_url: str
    challenger: str = ""
    gates: tuple[Gate, ...] = ()
    report: str = ""

    def check(self) -> None:
        """Raise GateError where a gate was not passed."""
        failed = [gate for gate in self.gates if not gate.passed]
        if failed:
            why = "; ".join(f"{gate.name}: {gate.found}, asked: {gate.asked}" for gate in failed)
            stays = "still names no version" if self.now is None else f"stays with version {self.now}"
            raise GateError(
                f"version {self.challenger} did not pass {len(failed)} of {len(self.gates)} gates ({why}); "
                f"{self.model}@{self.alias} {stays}"
            )


def promote(spark: SparkSession, settings: PromoteSettings, progress: Progress | None = None) -> Promotion:
    """Compare a challenger with the champion, in an MLflow run, and move the alias where it passes every gate.

    Raises ConfigError, ImageSetError and ModelError before anything is scored; PromotionError where another job is
    about to move the alias, at once, or has moved it meanwhile. `Promotion.check` raises where a gate was not passed.
    """
    name, alias = settings.model, settings.alias
    store = connect(settings.tracking)
    challenger = find_version(name, settings.challenger or "")
    image_set = open_labelled(settings.data.path or _trained_on(challenger), settings.data.split)
    with (
        as_tracking_error(store),
        model_run(
            store,
            settings.tracking.experiment,
            f"promote {challenger}",
            flatten(settings),
            {"name": name, "version": challenger.version},
            (image_set.folder.uri, image_set.fingerprint),
            "evaluation",
        ) as tracker,
        promotion_of(name, alias, tracker.run_id) as claim,
    ):
        champion = claim.champion
        if champion is not None and champion.version == challenger.version:
            raise ConfigError(f"challenger={settings.challenger} is {name}@{alias} already")
        contest = Contest(spark, image_set, settings, store, progress or Progress())
        evaluation, gates = contest.hold(challenger, champion)
        report = keep_evaluation(tracker, evaluation, settings.model_dump(mode="json"), gates)
        passed = all(gate.passed for gate in gates)
        if passed:
            because = settings.reason or f"passed all {len(gates)} gates"
            kept = f"runs:/{tracker.run_id}/{EVALUATION}/{REPORT}"
            move_alias(challenger, alias, tracker.run_id, because, report=kept, check=claim.check)
        before = champion.version if champion else None
        now = challenger.version if passed else before
        return Promotion(name, alias, before, now, tracker.run_url, challenger.version, gates, report)


def roll_back(settings: PromoteSettings) -> Promotion:
    """Bring back the version that had the alias before the present one. Raises PromotionError where none is known."""
    name, alias = settings.model, settings.alias
    store = connect(settings.tracking)
    title = f"roll back {name}@{alias}"
    with (
        as_tracking_error(store),
        model_run(
            store, settings.tracking.experiment, title, flatten(settings), {"name": name}, None, "evaluation"
        ) as tracker,
    ):
        lost, back = move_back(name, alias, tracker.run_id, settings.reason or "rollback")
        return Promotion(name, alias, lost.version, back.version, tracker.run_url)


def _trained_on(challenger: Version) -> str:
    path = image_set_of(challenger.run_id) if challenger.run_id else None
    if path is None:
        raise ConfigError(f"{challenger} does not tell what it was trained on; name an image set with data.path")
    return path
