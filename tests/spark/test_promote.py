"""Promotion: gates on real versions, who moved the alias and why, rollback, and two jobs at once."""

import json
import re
import subprocess
import sys
from contextlib import nullcontext
from datetime import datetime, timedelta, timezone
from pathlib import Path

import mlflow
import numpy as np
import pytest
from pyspark.sql import SparkSession

from cnnlib.config import (
    GateSettings,
    OptimizerSettings,
    PromoteSettings,
    PromotionDataSettings,
    RegisterSettings,
    TrackingSettings,
)
from cnnlib.errors import ConfigError, GateError, ModelError, PromotionError
from jobs import promote as job
from pipelines.evaluate import gate_checks
from pipelines.evaluate.promote import Promotion, promote, roll_back
from pipelines.tracking.aliases import move_alias, version_with
from pipelines.tracking.registry import TrainedOn, find_version, log_sealed_model
from pipelines.tracking.store import connect
from pipelines.tracking.tracker import Tracker
from pipelines.train.flow import TrainedModel, train
from tests.spark import own_process
from tests.spark.conftest import Trained
from tests.spark.mlflow_server import Server
from tests.unit.report_pages import Page

NAME = "rivals"
WEAK, STRONG = "1", "2"


@pytest.fixture(scope="module")
def rivals(spark: SparkSession, trained: Trained) -> dict[str, TrainedModel]:
    """Two trained versions without a champion: the first has learnt little, the second as much as 600 digits allow."""
    register = RegisterSettings(name=NAME, alias=None)
    weak = trained.settings.model_copy(
        update={"register": register, "optimizer": OptimizerSettings(learning_rate=3e-5)}
    )
    strong = trained.settings.model_copy(update={"register": register})
    return {version: train(spark, settings) for version, settings in ((WEAK, weak), (STRONG, strong))}


@pytest.fixture(autouse=True)
def no_champion(request: pytest.FixtureRequest, trained: Trained) -> None:
    if "rivals" in request.fixturenames:
        request.getfixturevalue("rivals")
        connect(trained.tracking)
        mlflow.MlflowClient().delete_registered_model_alias(NAME, "champion")


def asked(trained: Trained, challenger: str | None, **more: object) -> PromoteSettings:
    # Other tests use the machine too, so two equally fast models can seem different. Another test compares speeds.
    more.setdefault("gates", GateSettings(min_speed=0.2))
    return PromoteSettings(model=NAME, challenger=challenger, tracking=trained.tracking, **more)


def champion() -> str | None:
    version = version_with(NAME, "champion")
    return version.version if version else None


def gates_by_name(promotion: Promotion) -> dict[str, bool]:
    return {gate.name: gate.passed for gate in promotion.gates}


def test_first_champion_needs_only_parity(spark: SparkSession, trained: Trained, rivals: object) -> None:
    promotion = promote(spark, asked(trained, WEAK))
    assert gates_by_name(promotion) == {"parity": True}
    assert (promotion.before, promotion.now, champion()) == (None, WEAK, WEAK)


def test_better_version_takes_the_alias_with_a_reason(
    spark: SparkSession, trained: Trained, rivals: dict[str, TrainedModel]
) -> None:
    mlflow.MlflowClient().set_registered_model_alias(NAME, "champion", WEAK)
    gates = GateSettings(better=0.05, min_speed=0.2)
    promotion = promote(spark, asked(trained, STRONG, gates=gates, reason="learnt more"))
    assert gates_by_name(promotion) == {
        "accuracy": True,
        "recall of each class": True,
        "better": True,
        "speed": True,
        "parity": True,
    }
    promotion.check()
    assert (promotion.before, promotion.now, champion()) == (WEAK, STRONG, STRONG)
    tags = find_version(NAME, STRONG).tags
    run = mlflow.MlflowClient().get_run(tags["sparkcnn_champion_run"])
    assert tags["sparkcnn_champion_by"] == run.data.tags["mlflow.user"]
    assert datetime.now(timezone.utc) - datetime.fromisoformat(tags["sparkcnn_champion_at"]) < timedelta(minutes=5)
    assert tags["sparkcnn_champion_because"] == "learnt more"
    assert tags["sparkcnn_champion_previous"] == WEAK
    report = Path(mlflow.artifacts.download_artifacts(tags["sparkcnn_champion_report"])).read_text()
    page = Page(report)
    assert [row[0] for row in page.rows["gates"][1:]] == [gate.name for gate in promotion.gates]
    assert page.says("", f"{NAME} version {STRONG}")
    # The claim of the promotion is gone.
    assert [name for name in mlflow.MlflowClient().get_registered_model(NAME).tags if "promotion" in name] == []


@pytest.mark.main_path
def test_worse_version_fails_and_the_alias_stays(
    spark: SparkSession, trained: Trained, rivals: dict[str, TrainedModel]
) -> None:
    move_alias(find_version(NAME, STRONG), "champion", rivals[STRONG].run_id, "for the test")
    before = find_version(NAME, WEAK).tags
    promotion = promote(spark, asked(trained, WEAK, gates=GateSettings(better=0.05, min_speed=0.2)))
    assert gates_by_name(promotion) == {
        "accuracy": False,
        "recall of each class": False,
        "better": False,
        "speed": True,
        "parity": True,
    }
    assert (promotion.before, promotion.now, champion()) == (STRONG, STRONG, STRONG)
    assert find_version(NAME, WEAK).tags == before
    accuracy = promotion.gates[0]
    lost = float(accuracy.champion) - float(accuracy.challenger)
    with pytest.raises(
        GateError, match=rf"3 of 5 gates \(accuracy: lower by {lost:.4f}, asked: .*stays with version 2"
    ):
        promotion.check()
    assert GateError.exit_status == 4
    assert "did not pass 3 of 5" in Path(promotion.report).read_text()


def test_job_ends_with_status_4_and_the_table_says_which_gate(
    spark: SparkSession,
    trained: Trained,
    rivals: object,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    mlflow.MlflowClient().set_registered_model_alias(NAME, "champion", STRONG)
    monkeypatch.setattr("pipelines.spark.session.job_session", lambda name: nullcontext(spark))
    named = ["--model", NAME, "--challenger", WEAK, "--tracking.uri", str(trained.tracking.uri)]
    assert job.main([*named, "--gates.min_speed", "0.2"]) == 4
    said = capsys.readouterr()
    rows = {line.split("│")[1].strip(): line.split("│")[-2].strip() for line in said.out.splitlines() if "│" in line}
    assert rows["accuracy"] == rows["recall of each class"] == "NO"
    assert rows["speed"] == rows["parity"] == "yes"
    assert rows["now"] == f"version {STRONG}"
    (line,) = [line for line in said.err.splitlines() if line.startswith("sparkcnn promote: ")]
    assert f"version {WEAK} did not pass 2 of 4 gates (accuracy: lower by" in line


def test_gates_can_be_left_out_and_speed_is_measured(spark: SparkSession, trained: Trained, rivals: object) -> None:
    mlflow.MlflowClient().set_registered_model_alias(NAME, "champion", STRONG)
    only_speed = GateSettings(max_accuracy_loss=None, max_recall_loss=None, parity=None, min_speed=10)
    promotion = promote(spark, asked(trained, WEAK, gates=only_speed, data=PromotionDataSettings(split="val")))
    (gate,) = promotion.gates
    assert (gate.name, gate.passed) == ("speed", False)
    # Both have the same architecture, so neither is three times as fast as the other.
    assert 1 / 3 < float(gate.found.split()[0]) < 3


def test_version_that_differs_from_its_run_fails_parity(
    spark: SparkSession, trained: Trained, rivals: dict[str, TrainedModel], tmp_path: Path
) -> None:
    import keras

    from cnnlib.models import build_model

    store = connect(trained.tracking)
    other = build_model("lenet", image_shape=(28, 28, 1), classes=10)
    example = np.zeros((28, 28, 1), np.uint8)
    experiment = mlflow.get_experiment_by_name("digits").experiment_id
    with mlflow.start_run(experiment_id=experiment) as run:
        strong, tracker = (Tracker(id_, experiment, store) for id_ in (rivals[STRONG].run_id, run.info.run_id))
        best = rivals[STRONG].best_epoch
        tracker.log_checkpoint(best, strong.fetch_checkpoint(best, tmp_path))
        tracker.log_best(best, "val_accuracy", 1.0)
        _, swapped = log_sealed_model(other, TrainedOn.of(trained.image_set), example, register_as=NAME)
    with mlflow.start_run(experiment_id=experiment):
        _, without = log_sealed_model(other, TrainedOn.of(trained.image_set), example, register_as=NAME)
    keras.backend.clear_session()
    found = {}
    for version in (swapped, without):
        settings = asked(trained, version, data=PromotionDataSettings(path=trained.image_set.folder.uri))
        (gate,) = promote(spark, settings).gates
        assert not gate.passed
        found[version] = gate.found
    assert float(found[swapped].removeprefix("differ by ")) > 0.01
    assert found[without] == "its run has no checkpoint to compare with"
    assert champion() is None


@pytest.mark.main_path
def test_rollback_brings_back_the_version_before(trained: Trained, rivals: dict[str, TrainedModel]) -> None:
    for version in (WEAK, STRONG):
        move_alias(find_version(NAME, version), "champion", rivals[version].run_id, "for the test")
    back = PromoteSettings(model=NAME, rollback=True, reason="complaints", tracking=trained.tracking)
    promotion = roll_back(back)
    assert (promotion.before, promotion.now, champion()) == (STRONG, WEAK, WEAK)
    promotion.check()
    tag = find_version(NAME, STRONG).tags["sparkcnn_champion_rolled_back"]
    assert tag.startswith(f"to version {WEAK} by ")
    assert tag.endswith(": complaints")
    with pytest.raises(
        PromotionError, match="rivals version 1 has the alias, and no tag names the version that had it before"
    ):
        roll_back(back)
    assert champion() == WEAK


def test_alias_that_another_job_moved_stays(
    spark: SparkSession, trained: Trained, rivals: dict[str, TrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = gate_checks.GateChecks.run

    def disturbed(*arguments: object) -> object:
        given = run(*arguments)
        mlflow.MlflowClient().set_registered_model_alias(NAME, "champion", WEAK)
        return given

    before = find_version(NAME, STRONG).tags
    monkeypatch.setattr(gate_checks.GateChecks, "run", disturbed)
    with pytest.raises(PromotionError, match="was moved from version None to 1 during this promotion, and stays there"):
        promote(spark, asked(trained, STRONG))
    assert champion() == WEAK
    assert find_version(NAME, STRONG).tags == before


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"challenger": "99"}, ModelError, "rivals has no version 99"),
        ({"challenger": "nobody"}, ModelError, "rivals has no version nobody"),
        ({"challenger": STRONG}, ConfigError, "challenger=2 is already rivals@champion; name another version"),
    ],
)
def test_nothing_to_promote_is_refused(
    spark: SparkSession, trained: Trained, rivals: object, settings: dict, kind: type[Exception], message: str
) -> None:
    mlflow.MlflowClient().set_registered_model_alias(NAME, "champion", STRONG)
    with pytest.raises(kind, match=message):
        promote(spark, asked(trained, **settings))
    assert champion() == STRONG


def test_only_one_of_two_promotions_gets_the_alias(tmp_path: Path) -> None:
    result = own_process.run("racing_promotions", tmp_path)
    pairs = list(zip(result["outcomes"]["1"], result["outcomes"]["2"], strict=True))
    assert [pair.count("moved") for pair in pairs] == [1] * len(pairs)
    # The loser is refused at once, or at the end if the winner has already finished.
    why = re.compile("being promoted by another job|was moved from version None to . during this promotion")
    assert all(outcome == "moved" or why.search(outcome) for pair in pairs for outcome in pair)
    assert result["champions"] == ["1" if pair[0] == "moved" else "2" for pair in pairs]
    assert result["tags"] == result["loser's tags"] == [{}] * len(pairs)


def test_two_jobs_at_once_on_a_server(spark: SparkSession, trained: Trained, tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.start()
    try:
        connect(TrackingSettings(uri=server.url))
        from cnnlib.models import build_model

        model = build_model("lenet", image_shape=(28, 28, 1), classes=10)
        for _ in range(2):
            with mlflow.start_run():
                log_sealed_model(
                    model, TrainedOn.of(trained.image_set), np.zeros((28, 28, 1), np.uint8), register_as=NAME
                )
        arguments = [
            *(sys.executable, "-m", "jobs.sparkcnn", "promote", "--model", NAME, "--gates.parity", "null"),
            *("--data.path", trained.image_set.folder.uri, "--tracking.uri", server.url),
        ]
        jobs = {
            version: subprocess.Popen(
                [*arguments, "--challenger", version],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=own_process.environment(),
                cwd=own_process.ROOT,
            )
            for version in ("1", "2")
        }
        said = {version: job.communicate(timeout=300) for version, job in jobs.items()}
        status = {version: job.returncode for version, job in jobs.items()}
        assert sorted(status.values()) == [0, 2], json.dumps(said)
        (winner,) = [version for version, code in status.items() if code == 0]
        (loser,) = set(status) - {winner}
        assert champion() == winner
        assert f"now    │ version {winner}" in said[winner][0]
        assert (
            said[loser][1]
            .splitlines()[-1]
            .startswith(f"sparkcnn promote: {NAME}@champion is being promoted by another job (run ")
        )
    finally:
        server.kill()
