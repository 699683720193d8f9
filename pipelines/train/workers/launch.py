"""Spark barrier tasks -> the ranks of one training: started, connected, watched, and ended with their tasks.

`mapInPandas(barrier=True)` starts either all tasks at once or none, on classic Spark and on Spark Connect. Each task
exchanges addresses with the others, checks that it can reach them, starts its rank in a process of its own, and returns
the outcome of that process. A task does not fail when its rank fails; the driver decides about a restart. If Spark
loses a task, it cancels the job, and the ranks of the other tasks end with their tasks.
"""

import json
import os
import secrets
import socket
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from pyspark import BarrierTaskContext
from pyspark.sql import SparkSession

from cnnlib.errors import HostError
from pipelines.spark.interruptible_job import run_interruptibly
from pipelines.train.workers import start_deadline
from pipelines.train.workers.connections import address_of, close_all, connection_problems, host_and_port, listen
from pipelines.train.workers.failure_signal import FailureSignal
from pipelines.train.workers.rank_process import RankProcess, describe_exit
from pipelines.train.workers.start_deadline import NotStartedError, enforce_start_deadline

RESULT_FILE = "result.json"
# A failure signal arrives within milliseconds.
SECONDS_FOR_SIGNAL = 5.0

DONE = "done"
REFUSED = "refused"  # a SparkcnnError: another attempt would not help
FAILED = "failed"
STOPPED = "stopped"  # because another rank failed
LOST = "lost"  # Spark lost the task, and the rank with it


@dataclass(frozen=True)
class RankOutcome:
    """The outcome of one rank. `first` marks the rank that failed first; `result` is the content of its result file."""

    rank: int
    outcome: str
    message: str = ""
    first: bool = False
    host: str = ""
    last_lines: list[str] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LaunchPlan:
    """What to start: `python -m module` for every rank, with `spec` and the fields that `_start_rank` adds to it.

    - `environment`: variables for the rank's process.
    - `ports`: first and last port that ranks may listen on; None for any free port.
    - `echo`: whether the executors' logs show the output of the ranks.
    """

    module: str
    workers: int
    gpus_per_worker: int
    spec: Mapping[str, Any]
    environment: Mapping[str, str]
    ports: tuple[int, int] | None = None
    echo: bool = True


@dataclass(frozen=True)
class _ConnectedTask:
    """A task after it has exchanged addresses with all others and tried to reach them.

    `addresses` are those of the ranks, in order. `rank_listener` and `signal_listener` are this task's open sockets.
    `secret` is common to all tasks. `problem` is the first problem of any task. If it is set, both sockets are
    None.
    """

    rank: int
    host: str
    problem: str = ""
    gpus: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    signal_address: str = ""
    secret: str = ""
    rank_listener: socket.socket | None = None
    signal_listener: socket.socket | None = None


def launch(spark: SparkSession, plan: LaunchPlan) -> list[RankOutcome]:
    """Run the ranks of a plan on Spark, and return their outcomes in order when all have ended."""
    return _run_on_barrier(spark, plan, _run_rank)


def try_connections(
    spark: SparkSession, *, workers: int, gpus_per_worker: int = 0, ports: tuple[int, int] | None = None
) -> list[RankOutcome]:
    """Launch without ranks: start all tasks at once, check their GPUs, and let them open ports and connect."""
    plan = LaunchPlan("", workers, gpus_per_worker, spec={}, environment={}, ports=ports)
    return _run_on_barrier(spark, plan, _only_connect)


# The work of a task.
_TaskWork = Callable[[LaunchPlan, BarrierTaskContext], RankOutcome]


def _run_on_barrier(spark: SparkSession, plan: LaunchPlan, work: _TaskWork) -> list[RankOutcome]:
    frame = spark.range(plan.workers, numPartitions=plan.workers)
    outcomes = frame.mapInPandas(_BarrierTask(plan, work), "outcome string", barrier=True)
    try:
        rows = run_interruptibly(spark, outcomes.collect, partial(enforce_start_deadline, spark))
    except NotStartedError as error:
        raise HostError(
            f"Spark did not start the tasks of train.workers={plan.workers} within "
            f"{start_deadline.SECONDS_TO_START:g} s; they must all run at once: lower train.workers, give Spark more "
            "executors or cores, or wait for free ones"
        ) from error
    return sorted((RankOutcome(**json.loads(row["outcome"])) for row in rows), key=lambda outcome: outcome.rank)


class _BarrierTask:
    """The function that Spark runs in each task. As a class, it shows what is pickled; a closure would hide that."""

    def __init__(self, plan: LaunchPlan, work: _TaskWork) -> None:
        self._plan = plan
        self._work = work

    def __call__(self, batches: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for _ in batches:
            pass
        outcome = self._work(self._plan, BarrierTaskContext.get())
        yield pd.DataFrame({"outcome": [json.dumps(asdict(outcome))]})


def _only_connect(plan: LaunchPlan, context: BarrierTaskContext) -> RankOutcome:
    task = _connect(plan, context)
    # `_connect` ends with an exchange, so no task closes its sockets before all have tried to reach them.
    close_all(task.rank_listener, task.signal_listener)
    return RankOutcome(task.rank, REFUSED if task.problem else DONE, task.problem, host=task.host)


def _run_rank(plan: LaunchPlan, context: BarrierTaskContext) -> RankOutcome:
    task = _connect(plan, context)
    if task.problem:
        return RankOutcome(task.rank, REFUSED, task.problem, host=task.host)
    if task.rank != 0:
        close_all(task.signal_listener)
    # Spark removes this folder at its own end, even after a task was killed.
    spark_folder = os.environ.get("SPARK_LOCAL_DIRS", "").split(",")[0]
    prefix = f"sparkcnn-rank-{task.rank}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=spark_folder or None) as folder:
        return _watch_rank(plan, context, task, Path(folder))


def _connect(plan: LaunchPlan, context: BarrierTaskContext) -> _ConnectedTask:
    """Open this task's sockets, exchange addresses with the other tasks, and check that all can be reached."""
    rank = context.partitionId()
    host, _ = host_and_port(context.getTaskInfos()[rank].address)
    ports = range(plan.ports[0], plan.ports[1] + 1) if plan.ports else None
    gpus = _gpus(plan, context)
    rank_listener, signal_listener, problem = _open_listeners(host, ports)
    if gpus is None:
        problem = f"Spark assigned no GPU to its task on {host}"
    tasks = _exchange(
        context,
        {
            "problem": problem,
            "rank_address": address_of(rank_listener) if rank_listener else "",
            "signal_address": address_of(signal_listener) if signal_listener else "",
            "secret": secrets.token_hex(16),
        },
    )
    addresses = [task["rank_address"] for task in tasks]
    first = tasks[0]
    problems = [task["problem"] for task in tasks]
    if not any(problems):
        unreachable = connection_problems([first["signal_address"], *addresses])
        problem = "; ".join(f"{host} cannot reach {address}: {why}" for address, why in unreachable.items())
        problems = [task["problem"] for task in _exchange(context, {"problem": problem})]
    named = [f"rank {number}: {problem}" for number, problem in enumerate(problems) if problem]
    if named:
        close_all(rank_listener, signal_listener)
        return _ConnectedTask(rank, host, named[0])
    return _ConnectedTask(
        rank, host, "", gpus or [], addresses, first["signal_address"], first["secret"], rank_listener, signal_listener
    )


def _open_listeners(host: str, ports: range | None) -> tuple[socket.socket | None, socket.socket | None, str]:
    """Open the socket of this task's rank, and one for the failure signal. Return both, and a problem or "".

    Only the first task uses the second socket.
    """
    try:
        rank_listener = listen(host, ports)
    except OSError as error:
        return None, None, f"{error} on {host}"
    try:
        return rank_listener, listen(host, ports), ""
    except OSError as error:
        rank_listener.close()
        return None, None, f"{error} on {host}"


def _watch_rank(plan: LaunchPlan, context: BarrierTaskContext, task: _ConnectedTask, folder: Path) -> RankOutcome:
    """Start the rank, wait for its end, and end it if another rank fails first."""
    rank = task.rank
    first: list[int] = []
    stopped = threading.Event()
    with _start_rank(plan, context, task, folder) as process:

        def stop(first_failed: int) -> None:
            first.append(first_failed)
            stopped.set()
            process.end()

        listener = task.signal_listener if rank == 0 else None
        signal = FailureSignal(rank, task.signal_address, task.secret, listener, stop)
        status = process.wait()
        if status != 0:
            signal.fail()
        # All tasks wait for one another and for the signal, so no connection closes before the signal has arrived.
        if any(other["status"] != 0 for other in _exchange(context, {"status": status})):
            stopped.wait(SECONDS_FOR_SIGNAL)
            _exchange(context, {})
        signal.close()
    result_file = folder / RESULT_FILE
    result = json.loads(result_file.read_text()) if result_file.exists() else {}
    outcome = DONE if status == 0 else REFUSED if "refused" in result else FAILED
    is_first = bool(first) and first[0] == rank
    if outcome == FAILED and not is_first:
        outcome = STOPPED
    return RankOutcome(rank, outcome, describe_exit(status), is_first, task.host, process.last_lines, result)


def _start_rank(plan: LaunchPlan, context: BarrierTaskContext, task: _ConnectedTask, folder: Path) -> RankProcess:
    """Start the process of the rank.

    Without a GPU it takes over the task's listening socket, so no other process can take the port in between.
    """
    assert task.rank_listener is not None
    if task.gpus:
        # TensorFlow opens the port itself.
        task.rank_listener.close()
    spec = {
        **plan.spec,
        "rank": task.rank,
        "addresses": task.addresses,
        "secret": task.secret,
        "listener": None if task.gpus else task.rank_listener.fileno(),
        "gpu": bool(task.gpus),
        "cpus": context.cpus(),
        "result": RESULT_FILE,
    }
    environment = {**plan.environment, "CUDA_VISIBLE_DEVICES": ",".join(task.gpus)}
    inherited = () if task.gpus else (task.rank_listener.fileno(),)
    process = RankProcess(plan.module, spec, environment, folder, echo=plan.echo, pass_fds=inherited)
    task.rank_listener.close()
    return process


def _gpus(plan: LaunchPlan, context: BarrierTaskContext) -> list[str] | None:
    """Return the addresses of the GPUs to use, or None if the plan asks for GPUs and Spark assigned none."""
    if not plan.gpus_per_worker:
        return []
    assigned = context.resources().get("gpu")
    return assigned.addresses[: plan.gpus_per_worker] if assigned and assigned.addresses else None


def _exchange(context: BarrierTaskContext, own: dict[str, Any]) -> list[dict[str, Any]]:
    """Send `own` to all tasks, and return the messages of all tasks in the order of ranks."""
    return [json.loads(text) for text in context.allGather(json.dumps(own))]
