"""Spark barrier tasks -> the ranks of one training: placed, connected, watched, and gone when it ends.

`mapInPandas(barrier=True)` starts all tasks at once or none, on classic Spark and on Spark Connect. Each task
exchanges addresses with the others, checks that they can be reached, starts its rank in a process of its own, and
returns what became of it. A task of ours does not fail with its rank, for Spark would then start them all
again by itself: the driver decides what a failure means. Where Spark does lose a task it may start all of them
again, and they go on from the last checkpoint; rank 0 counts every start.
"""

import json
import socket
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from pyspark import BarrierTaskContext
from pyspark.sql import SparkSession

from pipelines.lifeline import Lifeline, listen, unreachable_of
from pipelines.rank_process import RankProcess, how_it_ended

RESULT_FILE = "result.json"
# The news of a rank's own failure comes back to it over the line within milliseconds.
GRACE_FOR_NEWS = 5.0

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

    With a `problem`, which is the first task's that had one, it has no sockets.
    """

    rank: int
    host: str
    gpus: list[str]
    addresses: list[str]
    hub_address: str
    own: socket.socket | None
    hub: socket.socket | None
    problem: str = ""


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
    rows = frame.mapInPandas(_TaskOf(plan, part), "outcome string", barrier=True).collect()
    return sorted((RankOutcome(**json.loads(row["outcome"])) for row in rows), key=lambda outcome: outcome.rank)


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
    # None may hang up before all have tried to reach it: `_meet` ends with an exchange.
    _close(meeting.own, meeting.hub)
    return RankOutcome(meeting.rank, REFUSED if meeting.problem else DONE, meeting.problem, host=meeting.host)


def _run_rank(plan: LaunchPlan, context: BarrierTaskContext) -> RankOutcome:
    meeting = _meet(plan, context)
    if meeting.problem:
        return RankOutcome(meeting.rank, REFUSED, meeting.problem, host=meeting.host)
    assert meeting.own is not None
    assert meeting.hub is not None
    if meeting.rank != 0:
        meeting.hub.close()
    return _watch_rank(plan, context, meeting.gpus, meeting.addresses, meeting.hub_address, meeting.own, meeting.hub)


def _meet(plan: LaunchPlan, context: BarrierTaskContext) -> _Meeting:
    rank = context.partitionId()
    host = context.getTaskInfos()[rank].address.rsplit(":", 1)[0]
    ports = range(plan.ports[0], plan.ports[1] + 1) if plan.ports else None
    gpus = _gpus(plan, context)
    own, hub, problem = _own_sockets(host, ports)
    if gpus is None:
        problem = f"Spark assigned no GPU to its task on {host}"
    told = _exchange(context, {"problem": problem, "own": _address(own), "hub": _address(hub)})
    if not any(one["problem"] for one in told):
        unreached = unreachable_of([told[0]["hub"], *(one["own"] for one in told)])
        problem = "; ".join(f"{host} cannot reach {address}: {why}" for address, why in unreached.items())
        told = [{**a, **b} for a, b in zip(told, _exchange(context, {"problem": problem}), strict=True)]
    problems = [f"rank {number}: {one['problem']}" for number, one in enumerate(told) if one["problem"]]
    if problems:
        _close(own, hub)
        return _Meeting(rank, host, [], [], "", None, None, problems[0])
    return _Meeting(rank, host, gpus or [], [one["own"] for one in told], told[0]["hub"], own, hub)


def _own_sockets(host: str, ports: range | None) -> tuple[socket.socket | None, socket.socket | None, str]:
    """The rank's own address, held until it starts; one for the lifeline, which the first task's is; what is wrong."""
    try:
        own = listen(host, ports)
    except OSError as error:
        return None, None, f"{error} on {host}"
    try:
        return own, listen(host, ports), ""
    except OSError as error:
        own.close()
        return None, None, f"{error} on {host}"


def _watch_rank(
    plan: LaunchPlan,
    context: BarrierTaskContext,
    gpus: list[str],
    addresses: list[str],
    hub_address: str,
    own: socket.socket,
    hub: socket.socket,
) -> RankOutcome:
    rank = context.partitionId()
    first: list[int] = []
    stopped = threading.Event()
    with tempfile.TemporaryDirectory(prefix=f"sparkcnn-rank-{rank}-") as folder:
        spec = {
            **plan.spec,
            "rank": rank,
            "addresses": addresses,
            "gpu": bool(gpus),
            "cpus": context.cpus(),
            "result": RESULT_FILE,
        }
        environment = {**plan.environment, "CUDA_VISIBLE_DEVICES": ",".join(gpus)}
        own.close()
        process = RankProcess(plan.module, spec, environment, Path(folder), echo=plan.echo)

        def stop(first_failed: int) -> None:
            first.append(first_failed)
            stopped.set()
            process.end()

        lifeline = Lifeline(rank, hub_address, hub if rank == 0 else None, stop)
        status = process.wait()
        if status != 0:
            lifeline.fail()
        # Everyone waits for everyone, so that no line is hung up while another rank may fail.
        _exchange(context, {})
        if status != 0:
            stopped.wait(GRACE_FOR_NEWS)
        lifeline.close()
        result_file = Path(folder) / RESULT_FILE
        result = json.loads(result_file.read_text()) if result_file.exists() else {}
    outcome = DONE if status == 0 else REFUSED if "refused" in result else FAILED
    is_first = bool(first) and first[0] == rank
    if outcome == FAILED and not is_first:
        outcome = STOPPED
    host = addresses[rank].rsplit(":", 1)[0]
    return RankOutcome(rank, outcome, how_it_ended(status), is_first, host, process.last_lines, result)


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


def _address(listener: socket.socket | None) -> str:
    if listener is None:
        return ""
    host, port = listener.getsockname()[:2]
    return f"{host}:{port}"
