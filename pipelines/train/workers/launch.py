"""Spark barrier tasks -> the ranks of one training: placed, connected, watched, and gone when it ends.

`mapInPandas(barrier=True)` starts all tasks at once or none, on classic Spark and on Spark Connect. Each task
exchanges addresses with the others, checks that they can be reached, starts its rank in a process of its own, and
returns what became of it. A task of ours does not fail with its rank: the driver decides what a failure means. Where
Spark loses a task, it gives up the job, and the other tasks' ranks end with them.
"""

import json
import os
import secrets
import socket
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from pyspark import BarrierTaskContext, inheritable_thread_target
from pyspark.sql import DataFrame, Row, SparkSession

from cnnlib.errors import HostError
from pipelines.spark.session import is_classic
from pipelines.train.workers import start_deadline
from pipelines.train.workers.failure_signal import FailureSignal, address_of, host_and_port, listen, unreachable_of
from pipelines.train.workers.rank_process import RankProcess, how_it_ended
from pipelines.train.workers.start_deadline import NotBegunError, begun_soon

RESULT_FILE = "result.json"
# The news of a failure comes over the line within milliseconds.
GRACE_FOR_NEWS = 5.0
SECONDS_TO_CANCEL = 10.0

DONE = "done"
REFUSED = "refused"  # a SparkcnnError: trying again would not help
FAILED = "failed"
STOPPED = "stopped"  # because another rank failed
LOST = "lost"  # with its task, by Spark


@dataclass(frozen=True)
class RankOutcome:
    """What became of one rank. `first` says whether it was the first to fail; `result` is what it left."""

    rank: int
    outcome: str
    message: str = ""
    first: bool = False
    host: str = ""
    last_lines: list[str] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LaunchPlan:
    """What to start: `python -m module` on every rank, with `spec` and what is added here.

    `environment` holds variables for it; `ports` those that ranks may listen on, None for any; with `echo` the
    executors' logs show what the ranks write.
    """

    module: str
    workers: int
    gpus_per_worker: int
    spec: Mapping[str, Any]
    environment: Mapping[str, str]
    ports: tuple[int, int] | None = None
    echo: bool = True


@dataclass(frozen=True)
class _Meeting:
    """What a task has when all have found one another: everyone's address, and its own sockets, open still.

    `secret` is one that all tasks share. With a `problem`, which is that of the first task that had one, there are no
    sockets.
    """

    rank: int
    host: str
    problem: str = ""
    gpus: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    hub_address: str = ""
    secret: str = ""
    own: socket.socket | None = None
    hub: socket.socket | None = None


def launch(spark: SparkSession, plan: LaunchPlan) -> list[RankOutcome]:
    """Run a plan's ranks on Spark, and give the outcome of each when all have ended."""
    return _on_barrier(spark, plan, _run_rank)


def meet(
    spark: SparkSession, *, workers: int, gpus_per_worker: int = 0, ports: tuple[int, int] | None = None
) -> list[RankOutcome]:
    """Do all of a launch but the ranks: tasks that run at once get their GPUs, open ports and reach one another."""
    plan = LaunchPlan("", workers, gpus_per_worker, spec={}, environment={}, ports=ports)
    return _on_barrier(spark, plan, _only_meet)


# What a task does with a plan.
_Part = Callable[[LaunchPlan, BarrierTaskContext], RankOutcome]


def _on_barrier(spark: SparkSession, plan: LaunchPlan, part: _Part) -> list[RankOutcome]:
    frame = spark.range(plan.workers, numPartitions=plan.workers)
    try:
        rows = _collected(spark, frame.mapInPandas(_TaskOf(plan, part), "outcome string", barrier=True))
    except NotBegunError as error:
        raise HostError(
            f"Spark has not begun the tasks of train.workers={plan.workers}, which must all run at once, "
            f"in {start_deadline.SECONDS_TO_BEGIN:g} s; lower it, give Spark more executors or cores, or wait for free "
            "ones"
        ) from error
    return sorted((RankOutcome(**json.loads(row["outcome"])) for row in rows), key=lambda outcome: outcome.rank)


def _collected(spark: SparkSession, frame: DataFrame) -> list[Row]:
    """Collect a frame in a thread; an interrupt of this one ends the job.

    PySpark answers SIGINT by cancelling all jobs, which fails in the midst of a call to the JVM: this thread is in
    none. Spark Connect lets a job go on without its client.
    """
    tag = f"sparkcnn-{secrets.token_hex(8)}"
    classic = is_classic(spark)
    rows: Future[list[Row]] = Future()

    def collect() -> None:
        (spark.sparkContext.addJobTag if classic else spark.addTag)(tag)
        try:
            rows.set_result(frame.collect())
        except BaseException as error:
            rows.set_exception(error)

    with warnings.catch_warnings():
        # Job group, pool and the like are the caller's; that tags are not is told as a warning.
        warnings.simplefilter("ignore", UserWarning)
        # Under Connect what a job has of its thread is the tag, which `collect` sets itself.
        target = inheritable_thread_target(collect) if classic else collect
    try:
        with begun_soon(spark, tag, rows):
            threading.Thread(target=target, name="sparkcnn-launch", daemon=True).start()
        return rows.result()
    except BaseException:
        with suppress(Exception):  # the job may be over, and Spark with it
            (spark.sparkContext.cancelJobsWithTag if classic else spark.interruptTag)(tag)
        wait([rows], SECONDS_TO_CANCEL)
        raise


class _TaskOf:
    """What Spark runs in each task; a class, for what a closure holds is harder to see."""

    def __init__(self, plan: LaunchPlan, part: _Part) -> None:
        self._plan = plan
        self._part = part

    def __call__(self, batches: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for _ in batches:
            pass
        outcome = self._part(self._plan, BarrierTaskContext.get())
        yield pd.DataFrame({"outcome": [json.dumps(asdict(outcome))]})


def _only_meet(plan: LaunchPlan, context: BarrierTaskContext) -> RankOutcome:
    meeting = _meet(plan, context)
    # None hangs up before all have tried to reach it: `_meet` ends with an exchange.
    _close(meeting.own, meeting.hub)
    return RankOutcome(meeting.rank, REFUSED if meeting.problem else DONE, meeting.problem, host=meeting.host)


def _run_rank(plan: LaunchPlan, context: BarrierTaskContext) -> RankOutcome:
    meeting = _meet(plan, context)
    if meeting.problem:
        return RankOutcome(meeting.rank, REFUSED, meeting.problem, host=meeting.host)
    if meeting.rank != 0:
        _close(meeting.hub)
    # Spark removes its own folder at its end, also after a task that was killed.
    spark_folder = os.environ.get("SPARK_LOCAL_DIRS", "").split(",")[0]
    prefix = f"sparkcnn-rank-{meeting.rank}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=spark_folder or None) as folder:
        return _watch_rank(plan, context, meeting, Path(folder))


def _meet(plan: LaunchPlan, context: BarrierTaskContext) -> _Meeting:
    rank = context.partitionId()
    host, _ = host_and_port(context.getTaskInfos()[rank].address)
    ports = range(plan.ports[0], plan.ports[1] + 1) if plan.ports else None
    gpus = _gpus(plan, context)
    own, hub, problem = _own_sockets(host, ports)
    if gpus is None:
        problem = f"Spark assigned no GPU to its task on {host}"
    told = _exchange(
        context,
        {
            "problem": problem,
            "own": address_of(own) if own else "",
            "hub": address_of(hub) if hub else "",
            "secret": secrets.token_hex(16),
        },
    )
    addresses = [one["own"] for one in told]
    if not any(one["problem"] for one in told):
        unreached = unreachable_of([told[0]["hub"], *addresses])
        problem = "; ".join(f"{host} cannot reach {address}: {why}" for address, why in unreached.items())
        told = [{**a, **b} for a, b in zip(told, _exchange(context, {"problem": problem}), strict=True)]
    problems = [f"rank {number}: {one['problem']}" for number, one in enumerate(told) if one["problem"]]
    if problems:
        _close(own, hub)
        return _Meeting(rank, host, problems[0])
    return _Meeting(rank, host, "", gpus or [], addresses, told[0]["hub"], told[0]["secret"], own, hub)


def _own_sockets(host: str, ports: range | None) -> tuple[socket.socket | None, socket.socket | None, str]:
    """The rank's own address, held until it starts; one for the signal, which the first task's is; what is wrong."""
    try:
        own = listen(host, ports)
    except OSError as error:
        return None, None, f"{error} on {host}"
    try:
        return own, listen(host, ports), ""
    except OSError as error:
        own.close()
        return None, None, f"{error} on {host}"


def _watch_rank(plan: LaunchPlan, context: BarrierTaskContext, meeting: _Meeting, folder: Path) -> RankOutcome:
    assert meeting.own is not None
    rank = meeting.rank
    first: list[int] = []
    stopped = threading.Event()
    with _started(plan, context, meeting, folder) as process:

        def stop(first_failed: int) -> None:
            first.append(first_failed)
            stopped.set()
            process.end()

        hub = meeting.hub if rank == 0 else None
        signal = FailureSignal(rank, meeting.hub_address, meeting.secret, hub, stop)
        status = process.wait()
        if status != 0:
            signal.fail()
        # Everyone waits for everyone, and for the news, so that no line is hung up before that has come.
        if any(one["status"] != 0 for one in _exchange(context, {"status": status})):
            stopped.wait(GRACE_FOR_NEWS)
            _exchange(context, {})
        signal.close()
    result_file = folder / RESULT_FILE
    result = json.loads(result_file.read_text()) if result_file.exists() else {}
    outcome = DONE if status == 0 else REFUSED if "refused" in result else FAILED
    is_first = bool(first) and first[0] == rank
    if outcome == FAILED and not is_first:
        outcome = STOPPED
    return RankOutcome(rank, outcome, how_it_ended(status), is_first, meeting.host, process.last_lines, result)


def _started(plan: LaunchPlan, context: BarrierTaskContext, meeting: _Meeting, folder: Path) -> RankProcess:
    """Start the rank. Without a GPU it goes on listening where the task did, so its port cannot be lost to another."""
    assert meeting.own is not None
    if meeting.gpus:
        # TensorFlow opens the port itself.
        meeting.own.close()
    spec = {
        **plan.spec,
        "rank": meeting.rank,
        "addresses": meeting.addresses,
        "secret": meeting.secret,
        "listener": None if meeting.gpus else meeting.own.fileno(),
        "gpu": bool(meeting.gpus),
        "cpus": context.cpus(),
        "result": RESULT_FILE,
    }
    environment = {**plan.environment, "CUDA_VISIBLE_DEVICES": ",".join(meeting.gpus)}
    handed_on = () if meeting.gpus else (meeting.own.fileno(),)
    process = RankProcess(plan.module, spec, environment, folder, echo=plan.echo, pass_fds=handed_on)
    meeting.own.close()
    return process


def _gpus(plan: LaunchPlan, context: BarrierTaskContext) -> list[str] | None:
    """The addresses of the GPUs to use; None where the plan asks for them and Spark assigned none."""
    if not plan.gpus_per_worker:
        return []
    assigned = context.resources().get("gpu")
    return assigned.addresses[: plan.gpus_per_worker] if assigned and assigned.addresses else None


def _exchange(context: BarrierTaskContext, own: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(text) for text in context.allGather(json.dumps(own))]


def _close(*opened: socket.socket | None) -> None:
    for one in opened:
        if one is not None:
            one.close()
