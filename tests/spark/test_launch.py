"""Launch ranks on Spark's barrier tasks: their start, their failures, and that none of them stays behind."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pandas as pd
import psutil
import pytest
from pyspark.sql import SparkSession

from cnnlib.errors import ConfigError, HostError, TrainingError
from pipelines.spark.cluster import task_slots
from pipelines.spark.progress import Progress
from pipelines.tracking.store import connect
from pipelines.tracking.tracker import LATEST, Tracker
from pipelines.train.workers import start_deadline, train_on_workers
from pipelines.train.workers.connections import listen
from pipelines.train.workers.launch import DONE, FAILED, LOST, REFUSED, STOPPED, LaunchPlan, RankOutcome, launch
from pipelines.train.workers.train_on_workers import fit_on_workers, launch_once
from tests.spark.conftest import Trained
from tests.spark.probes import PROBE_FILE, Probes, all_gone, eventually


@pytest.fixture(scope="module")
def cluster(spark: SparkSession) -> SparkSession:
    """The session. Its Python workers already have the file of the probe, as with --py-files."""
    spark.sparkContext.addPyFile(str(PROBE_FILE))
    return spark


@pytest.fixture
def probes(tmp_path: Path) -> Probes:
    return Probes(tmp_path)


def during(act: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_each_rank_is_a_fresh_process_that_ends_with_its_task(cluster: SparkSession, probes: Probes) -> None:
    outcomes = launch(cluster, probes.plan("end", "end"))
    assert [(one.rank, one.outcome, one.last_lines) for one in outcomes] == [
        (0, DONE, ["all is done"]),
        (1, DONE, ["all is done"]),
    ]
    again = launch(cluster, probes.plan("end", "end"))
    reports = [one.result for one in (*outcomes, *again)]
    assert len({report["pid"] for report in reports}) == 4
    assert not any(psutil.pid_exists(report["pid"]) for report in reports)
    assert not any(Path(report["folder"]).exists() for report in reports)


def test_rank_gets_its_number_and_all_addresses(cluster: SparkSession, probes: Probes) -> None:
    reports = [one.result for one in launch(cluster, probes.plan("end", "end"))]
    assert [report["rank"] for report in reports] == [0, 1]
    (addresses,) = {tuple(report["addresses"]) for report in reports}
    assert len(set(addresses)) == 2
    assert {address.split(":")[0] for address in addresses} == {"127.0.0.1"}
    assert [report["cpus"] for report in reports] == [1, 1]
    # A rank must not see a GPU that Spark did not assign to it.
    assert [(report["gpu"], report["environment"]) for report in reports] == [
        (False, {"CUDA_VISIBLE_DEVICES": "", "SPARKCNN_TEST": "set"})
    ] * 2


@pytest.mark.parametrize("acts", [("suffer", "fail"), ("fail", "suffer"), ("fail", "ignore")], ids=str)
def test_first_failure_is_found_among_its_consequences(
    cluster: SparkSession, probes: Probes, acts: tuple[str, str]
) -> None:
    outcomes = launch(cluster, probes.plan(*acts))
    first = outcomes[acts.index("fail")]
    assert (first.outcome, first.first, first.message) == (FAILED, True, "ended with exit status 1")
    assert first.last_lines == [*(f"line {number}" for number in range(11, 30)), "the disk is full"]
    (other,) = set(acts) - {"fail"}
    stopped = outcomes[acts.index(other)]
    assert (stopped.outcome, stopped.first) == (STOPPED, False)


def test_killed_rank_ends_the_others(cluster: SparkSession, probes: Probes) -> None:
    killer = during(lambda: probes.started(2)[1].kill())
    outcomes = launch(cluster, probes.plan("wait", "wait"))
    killer.join()
    assert [(one.outcome, one.first, one.message) for one in outcomes] == [
        (STOPPED, False, "was killed by SIGTERM"),
        (FAILED, True, "was killed by SIGKILL"),
    ]
    assert not any(psutil.pid_exists(report["pid"]) for report in probes.reports())


def test_refusal_of_a_rank_is_no_failure(cluster: SparkSession, probes: Probes) -> None:
    kept, refused = launch(cluster, probes.plan("wait", "refuse"))
    assert (refused.outcome, refused.first) == (REFUSED, True)
    assert refused.result == {"refused": "ConfigError", "message": "train.epochs is odd"}
    assert kept.outcome == STOPPED


def test_launch_releases_its_ports(cluster: SparkSession, probes: Probes) -> None:
    # Each rank uses two ports. If a launch kept one, the next launch would lack it.
    ports = (40310, 40313)
    for acts in (("end", "end"), ("fail", "wait"), ("end", "end")):
        outcomes = launch(cluster, probes.plan(*acts, ports=ports))
        assert {one.outcome for one in outcomes} <= {DONE, FAILED, STOPPED}, outcomes
        used = [int(address.rsplit(":", 1)[1]) for address in outcomes[0].result["addresses"]]
        assert all(ports[0] <= port <= ports[1] for port in used)


def test_taken_ports_are_named_before_anything_starts(cluster: SparkSession, probes: Probes) -> None:
    held = [listen("127.0.0.1", range(port, port + 1)) for port in (40320, 40321)]
    outcomes = launch(cluster, probes.plan("end", "end", ports=(40320, 40321)))
    for one in held:
        one.close()
    message = "rank 0: none of the ports 40320-40321 is free on 127.0.0.1"
    assert [(one.outcome, one.message) for one in outcomes] == [(REFUSED, message)] * 2
    assert probes.reports() == []


def test_lost_task_leaves_no_rank_and_the_next_launch_works(cluster: SparkSession, probes: Probes) -> None:
    ranks: list[psutil.Process] = []

    def kill_a_task() -> None:
        ranks.extend(probes.started(2))
        ranks[0].parent().kill()

    killer = during(kill_a_task)
    (lost,) = launch_once(cluster, probes.plan("wait", "wait"))
    killer.join()
    assert lost.outcome == LOST
    assert "\n" not in lost.message
    assert "Python worker exited unexpectedly" in lost.message
    assert all_gone(ranks)
    assert {one.outcome for one in launch(cluster, probes.plan("end", "end"))} == {DONE}


def test_launch_fails_while_another_job_holds_the_slots(
    cluster: SparkSession, probes: Probes, fit: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots = task_slots(cluster)
    free = [tmp_path / f"free {number}" for number in range(slots + 1)]
    for one in free:
        os.mkfifo(one)

    def hold(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for batch in batches:
            yield batch
            # Spark reports running tasks only when another task of the same job ends.
            number = batch["id"][0]
            if number > 0:
                (tmp_path / f"held {number}").touch()
                free[number].read_text()

    job = cluster.range(slots + 1, numPartitions=slots + 1).mapInPandas(hold, "id long")
    holder = during(job.collect)
    eventually(lambda: len(list(tmp_path.glob("held *"))) == slots)
    with monkeypatch.context() as patch:
        patch.setattr(start_deadline, "SECONDS_TO_START", 2.0)
        not_started = "did not start the tasks of train.workers=2 within 2 s; .* wait for free ones"
        with pytest.raises(HostError, match=not_started):
            launch(cluster, probes.plan("end", "end"))
        with pytest.raises(HostError, match=r"wait for free ones; then go on with --train\.resume \w{32}$"):
            fit(probes.plan("end", "end"), latest=3)
    assert probes.reports() == []
    for one in free[1:]:
        one.write_text("")
    holder.join()
    assert {one.outcome for one in launch(cluster, probes.plan("end", "end"))} == {DONE}


# --- the driver's reaction


@pytest.fixture
def fit(cluster: SparkSession, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`fit_on_workers` without a restart. It launches the plan of a test, or gets outcomes without a launch."""

    def run(plan: LaunchPlan | list[RankOutcome], workers: int = 2, max_restarts: int = 0, latest: int = 0) -> None:
        def launch_or_return(spark: SparkSession, _: LaunchPlan) -> list[RankOutcome]:
            run.launches += 1
            return launch(spark, plan) if isinstance(plan, LaunchPlan) else plan

        monkeypatch.setattr(train_on_workers, "launch", launch_or_return)
        fit = trained.settings.train.model_copy(update={"workers": workers, "max_restarts": max_restarts})
        uri = connect(trained.tracking)
        tracker = Tracker(mlflow.MlflowClient(uri).create_run("0").info.run_id, "0", uri)
        tracker.set_tag(LATEST, value=str(latest))
        fit_on_workers(
            cluster, trained.image_set, trained.settings.model_copy(update={"train": fit}), tracker, Progress()
        )

    run.launches = 0
    return run


def test_error_quotes_the_rank_that_failed_first(fit, probes: Probes) -> None:
    with pytest.raises(TrainingError, match="train.max_restarts=0 is used up") as error:
        fit(probes.plan("suffer", "fail"))
    assert error.value.message.startswith("rank 1 on 127.0.0.1 ended with exit status 1, and ")
    assert error.value.quoted == (*(f"line {number}" for number in range(11, 30)), "the disk is full")


def test_driver_raises_the_error_of_a_refusing_rank(fit, probes: Probes) -> None:
    with pytest.raises(ConfigError) as error:
        fit(probes.plan("wait", "refuse"), max_restarts=2)
    assert (type(error.value), error.value.message) == (ConfigError, "train.epochs is odd")


def test_training_does_not_restart_without_slots(
    fit, cluster: SparkSession, probes: Probes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_on_workers, "SECONDS_FOR_NEW_EXECUTORS", 0.0)
    slots = task_slots(cluster)
    with pytest.raises(TrainingError) as error:
        fit(probes.plan("fail", "suffer"), workers=slots + 1, max_restarts=2)
    says = f"Spark can now run only {slots} of the train.workers={slots + 1} tasks at once; when it has its "
    assert says in error.value.message
    assert error.value.quoted[-1] == "the disk is full"
    assert fit.launches == 1


def test_ranks_with_different_weights_are_an_error(fit) -> None:
    ended = [RankOutcome(rank, DONE, result={"weights_sha256": digest}) for rank, digest in enumerate("aab")]
    with pytest.raises(TrainingError, match="the ranks ended with 2 different sets of weights; report this fault"):
        fit(ended)
    fit(ended[:2])


@pytest.mark.parametrize("interrupt", [False, True], ids=["let tasks run out", "interrupt tasks"])
def test_cancelled_job_leaves_no_rank(cluster: SparkSession, probes: Probes, interrupt: bool) -> None:
    ranks: list[psutil.Process] = []

    def cancel() -> None:
        ranks.extend(probes.started(2))
        cluster.sparkContext.cancelAllJobs()

    cluster.sparkContext.setInterruptOnCancel(interrupt)
    canceller = during(cancel)
    (lost,) = launch_once(cluster, probes.plan("wait", "wait"))
    canceller.join()
    assert lost.outcome == LOST
    assert all_gone(ranks)


def test_interrupt_leaves_no_rank_and_a_usable_session(cluster: SparkSession, probes: Probes) -> None:
    ranks: list[psutil.Process] = []

    def interrupt() -> None:
        ranks.extend(probes.started(2))
        os.kill(os.getpid(), signal.SIGINT)

    interrupter = during(interrupt)
    with pytest.raises(KeyboardInterrupt):
        launch(cluster, probes.plan("wait", "wait"))
    interrupter.join()
    assert all_gone(ranks)
    assert {one.outcome for one in launch(cluster, probes.plan("end", "end"))} == {DONE}
