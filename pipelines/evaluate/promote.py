"""Promote a version of a registered model to champion if it passes every gate, or roll a promotion back."""

from dataclasses import dataclass

from pyspark.sql import SparkSession

from cnnlib.config import PromoteSettings, flatten
from cnnlib.errors import ConfigError, GateError
from cnnlib.evaluation.gates import Gate
from cnnlib.storage.folder import REPORT
from pipelines.evaluate.flow import keep_evaluation, open_labelled
from pipelines.evaluate.gate_checks import GateChecks
from pipelines.spark.progress import Progress
from pipelines.tracking.aliases import move_alias, move_back, promotion_of
from pipelines.tracking.model_uris import ModelVersion
from pipelines.tracking.registry import find_version
from pipelines.tracking.runs import image_set_of, model_run
from pipelines.tracking.store import as_tracking_error, connect
from pipelines.tracking.tracker import EVALUATION


@dataclass(frozen=True)
class Promotion:
    """The result of a promotion or a rollback.

    `before` is the version that had the alias, `now` the version that has it. None means that no version had or has
    it. `report` is the location of the report. A rollback has no `challenger`, gates or report.
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
        """Raise GateError if a gate was not passed."""
        failed = [gate for gate in self.gates if not gate.passed]
        if failed:
            reasons = "; ".join(f"{gate.name}: {gate.found}, asked: {gate.asked}" for gate in failed)
            outcome = "still names no version" if self.now is None else f"stays with version {self.now}"
            raise GateError(
                f"version {self.challenger} did not pass {len(failed)} of {len(self.gates)} gates ({reasons}); "
                f"{self.model}@{self.alias} {outcome}"
            )


def promote(spark: SparkSession, settings: PromoteSettings, progress: Progress | None = None) -> Promotion:
    """Compare a challenger with the champion in an MLflow run, and move the alias if it passes every gate.

    Raises ConfigError, ImageSetError and ModelError before anything is scored. Raises PromotionError at once if another
    job is promoting a version to the same alias, and at the end if somebody moved the alias in the meantime. A failed
    gate raises nothing here: call `Promotion.check` for that.

    Example:

        promotion = promote(spark, PromoteSettings(model="digits", challenger="4"))
        print(promotion.before, "->", promotion.now)
        promotion.check()
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
            raise ConfigError(f"challenger={settings.challenger} is already {name}@{alias}; name another version")
        checks = GateChecks(spark, image_set, settings, store, progress or Progress())
        evaluation, gates = checks.run(challenger, champion)
        report = keep_evaluation(tracker, evaluation, settings.model_dump(mode="json"), gates)
        passed = all(gate.passed for gate in gates)
        if passed:
            reason = settings.reason or f"passed all {len(gates)} gates"
            report_uri = f"runs:/{tracker.run_id}/{EVALUATION}/{REPORT}"
            move_alias(challenger, alias, tracker.run_id, reason, report=report_uri, check=claim.check)
        before = champion.version if champion else None
        now = challenger.version if passed else before
        return Promotion(name, alias, before, now, tracker.run_url, challenger.version, gates, report)


def roll_back(settings: PromoteSettings) -> Promotion:
    """Move the alias back to the version that had it before. Raises PromotionError if that version is not known."""
    name, alias = settings.model, settings.alias
    store = connect(settings.tracking)
    title = f"roll back {name}@{alias}"
    with (
        as_tracking_error(store),
        model_run(
            store, settings.tracking.experiment, title, flatten(settings), {"name": name}, None, "evaluation"
        ) as tracker,
    ):
        before, now = move_back(name, alias, tracker.run_id, settings.reason or "rollback")
        return Promotion(name, alias, before.version, now.version, tracker.run_url)


def _trained_on(challenger: ModelVersion) -> str:
    path = image_set_of(challenger.run_id) if challenger.run_id else None
    if path is None:
        raise ConfigError(
            f"the run of {challenger} does not name the image set that it was trained on; name one with data.path"
        )
    return path
