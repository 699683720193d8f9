"""Compare the speed of scoring with the model's ceiling and with peers: digits with LeNet, JPEGs with ResNet-18.

    python -m benchmarks.scoring [--digits 240000] [--photographs 20000] [--large 10000] [--rounds 3]

Each way scores the same images once per round, in its own process. Every second round runs the ways in reverse order,
because these machines are shared and noisy. A figure is the median of the rounds.

- Cold: the session has started, but it has no Python workers yet, and nothing has imported TensorFlow.
- Warm: a second run in the same session.
- The ceiling is one process on all cores, with the images in memory, and a model that is loaded and warm. At the same
  time, one further process per core decodes the JPEGs.
- Ray is installed into the benchmark's own folder, and runs where the loopback is the only network interface.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.goals import verdict
from benchmarks.processes import CommandFailed, pip_install, run_command, with_this_project
from benchmarks.ray_data import ISOLATE, RAY_PACKAGES
from benchmarks.scoring_subjects import SUBJECTS

CEILING = "ceiling"
OURS = "sparkcnn"
RAY = "ray_data"
NAMES = {
    CEILING: "ceiling: one process, all cores, in memory",
    OURS: "sparkcnn score",
    "predict_batch_udf": "predict_batch_udf around model.predict",
    "spark_udf": "mlflow.pyfunc.spark_udf",
    RAY: "Ray Data, an actor a core",
}
CEILING_GOAL, UDF_GOAL = 0.95, 2.0
WORKER_GOAL = 1.5e9


@dataclass
class Measurements:
    """Results of all rounds: seconds by way and kind (cold, warm), and by way the peak bytes of a Python worker."""

    images: int
    seconds: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    worker_bytes: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def median(self, way: str, kind: str) -> float:
        """Return the median of the seconds."""
        return statistics.median(self.seconds[way, kind])

    def rate(self, way: str) -> float:
        """Return the images/s of the warm run."""
        return self.images / self.median(way, "warm")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print one table per kind of images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=int, default=240_000, help="number of digits; 0 skips them")
    parser.add_argument("--photographs", type=int, default=20_000, help="number of photographs; 0 skips them")
    parser.add_argument("--large", type=int, default=10_000, help="number of images of 1 MB; 0 skips them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--without", nargs="*", default=[], choices=[way for way in NAMES if way not in (CEILING, OURS)]
    )
    options = parser.parse_args(arguments)
    ways = [way for way in NAMES if way not in options.without]
    with tempfile.TemporaryDirectory(prefix="sparkcnn-") as ray:
        if RAY in ways:
            pip_install(Path(ray), *RAY_PACKAGES)
        for subject in SUBJECTS:
            images = getattr(options, subject)
            if images:
                # The large images only measure memory, so they need no peers.
                subject_ways = [OURS] if subject == "large" else ways
                measured = measure(subject, images, subject_ways, options.rounds, ray)
                Console(width=170).print(table(subject, measured, subject_ways, options.rounds))


def measure(subject: str, images: int, ways: Sequence[str], rounds: int, ray: str) -> Measurements:
    """Run every way once per round."""
    measured = Measurements(images)
    with tempfile.TemporaryDirectory(prefix="sparkcnn-") as folder:
        run(measured, "prepare", ray, subject=subject, folder=folder, images=images)
        turns = [way for turn in range(rounds) for way in (reversed(ways) if turn % 2 else ways)]
        for way in track(turns, subject, console=Console(stderr=True)):
            run(measured, way, ray, subject=subject, folder=folder)
    return measured


def run(measured: Measurements, way: str, ray: str, **options: object) -> None:
    """Run one way, and add the seconds that it reports to the measurements."""
    command = [sys.executable, "-m", "benchmarks.scoring_ways", way, json.dumps(options)]
    environment = None
    if way == RAY:
        command, environment = [*ISOLATE, *command], with_this_project(Path(ray))
    try:
        finished = run_command(command, environment)
    except CommandFailed as error:
        print(error.errors, file=sys.stderr)
        raise
    report = json.loads(finished.output.splitlines()[-1])
    if report["images"] != measured.images:
        raise RuntimeError(f"{way} gave {report['images']} of {measured.images} predictions")
    for kind in report.keys() & {"cold", "warm"}:
        measured.seconds[way, kind].append(report[kind])
    measured.worker_bytes[way] = max(measured.worker_bytes[way], finished.worker_bytes)


def table(subject: str, measured: Measurements, ways: Sequence[str], rounds: int) -> Table:
    """Return the table of images/s and their ratios."""
    subject_class = SUBJECTS[subject]
    title = f"{measured.images:,} {subject_class.name}, {subject_class.model}, median of {rounds}: images/s"
    shown = Table(title=title, title_justify="left")
    for column in ("", "warm", "of the ceiling", "cold", "cold - warm: s", "largest worker: MB", "goal"):
        shown.add_column(column, justify="left" if column in ("", "goal") else "right")
    for way in ways:
        cold, warm = measured.median(way, "cold"), measured.median(way, "warm")
        memory = measured.worker_bytes[way]
        shown.add_row(
            NAMES[way],
            f"{measured.rate(way):,.0f}",
            f"{measured.rate(way) / measured.rate(CEILING):.2f}" if CEILING in ways else "",
            f"{measured.images / cold:,.0f}",
            f"{cold - warm:.1f}",
            f"{memory / 1e6:,.0f}" if memory else "",
            goal(way, measured, CEILING in ways),
        )
    return shown


def goal(way: str, measured: Measurements, has_ceiling: bool) -> str:
    """Return the goal of a way, and whether it was reached."""
    if not has_ceiling:
        return verdict(0 < measured.worker_bytes[way] <= WORKER_GOAL, f"no worker above {WORKER_GOAL / 1e6:,.0f} MB")
    if way == CEILING:
        return ""
    if way == OURS:
        ratio = measured.rate(OURS) / measured.rate(CEILING)
        return verdict(ratio >= CEILING_GOAL, f"at least {CEILING_GOAL} of the ceiling")
    times = measured.rate(OURS) / measured.rate(way)
    least = UDF_GOAL if way == "predict_batch_udf" else 1
    return verdict(times >= least, f"sparkcnn at least {least:g} x ({times:.1f} x)")


if __name__ == "__main__":
    main()
