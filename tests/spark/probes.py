"""Launch ranks without TensorFlow that act as a test says; see probe_rank.py."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from pipelines.train.workers.launch import LaunchPlan

PROBE_FILE = Path(__file__).with_name("probe_rank.py")
# Far longer than anything here takes. It ends a test that would otherwise wait for ever.
TIMEOUT_S = 90.0


@dataclass(frozen=True)
class Probes:
    """Launch plans whose ranks report into a folder."""

    folder: Path

    def plan(self, *acts: str, **options: Any) -> LaunchPlan:
        """Return a plan with one rank for each act, a function of probe_rank.py. `options` set fields of the plan."""
        values = {
            "module": PROBE_FILE.stem,
            "workers": len(acts),
            "gpus_per_worker": 0,
            "spec": {"acts": acts, "reports": str(self.folder)},
            "environment": {"SPARKCNN_TEST": "set"},
            "echo": False,
        }
        return LaunchPlan(**(values | options))

    def reports(self) -> list[dict[str, Any]]:
        """Return the reports of the ranks that have started so far, in the order of the ranks."""
        return [json.loads(path.read_text()) for path in sorted(self.folder.glob("[0-9].json"))]

    def started(self, count: int) -> list[psutil.Process]:
        """Wait until `count` ranks have started, and return their processes."""
        eventually(lambda: len(self.reports()) >= count)
        return [psutil.Process(report["pid"]) for report in self.reports()]


def eventually(condition: Callable[[], object], timeout_s: float = TIMEOUT_S) -> None:
    """Return as soon as a condition holds. Fail if it does not hold in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s")
        time.sleep(0.05)


def all_gone(processes: list[psutil.Process]) -> bool:
    """Return whether all processes end in time."""
    return psutil.wait_procs(processes, TIMEOUT_S)[1] == []
