"""How fast scoring is, beside the model's ceiling and its peers: digits with LeNet, JPEG files with ResNet-18.

    python -m benchmarks.scoring [--digits 240000] [--photographs 20000] [--large 10000] [--rounds 3]

Each way scores the same images in a process of its own once a round, and the rounds are interleaved, now in this order,
now in the other, for these machines are shared and noisy. A figure is the median of the rounds. Cold: the session is
there, but no Python worker, and none has imported TensorFlow; warm: a second run in the same session. The ceiling is
one process on all cores with the images in memory, its model loaded and warm; JPEGs are decoded beside it, in a process
a core. Ray is installed into the benchmark's own folder, and runs where there is no network but the loopback.
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
from benchmarks.ingest import ALONE, pip_install
from benchmarks.processes import CommandFailed, run_command, with_this_project
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
# What it needs of Ray besides what sparkcnn has: with its own pyarrow and NumPy it would not be the same images.
RAY_PACKAGES = (
    *("ray==2.60.0", "filelock", "msgpack", "jsonschema", "jsonschema-specifications", "referencing", "rpds-py"),
    "attrs",
)


@dataclass
class Measured:
    """What the rounds gave: seconds by way and kind (cold, warm), and the largest Python worker of Spark's by way."""

    images: int
    seconds: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    worker_bytes: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def middle(self, way: str, kind: str) -> float:
        """The median."""
        return statistics.median(self.seconds[way, kind])

    def rate(self, way: str) -> float:
        """Images/s, warm."""
        return self.images / self.middle(way, "warm")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table for each kind of images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=int, default=240_000, help="0 leaves them out")
    parser.add_argument("--photographs", type=int, default=20_000, help="0 leaves them out")
    parser.add_argument("--large", type=int, default=10_000, help="images of 1 MB; 0 leaves them out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--without", nargs="*", default=[], choices=[way for way in NAMES if way not in (CEILING, OURS)]
    )
    given = parser.parse_args(arguments)
    ways = [way for way in NAMES if way not in given.without]
    with tempfile.TemporaryDirectory(prefix="sparkcnn-") as ray:
        if RAY in ways:
            pip_install(sys.executable, "--no-deps", "--target", ray, *RAY_PACKAGES)
        for subject in SUBJECTS:
            images = getattr(given, subject)
            if images:
                # Of the large ones it is the memory that is asked for.
                told = [OURS] if subject == "large" else ways
                measured = measure(subject, images, told, given.rounds, ray)
                Console(width=170).print(table(subject, measured, told, given.rounds))


def measure(subject: str, images: int, ways: Sequence[str], rounds: int, ray: str) -> Measured:
    """Run every way once a round."""
    measured = Measured(images)
    with tempfile.TemporaryDirectory(prefix="sparkcnn-") as folder:
        run(measured, "prepare", ray, subject=subject, folder=folder, images=images)
        turns = [way for turn in range(rounds) for way in (reversed(ways) if turn % 2 else ways)]
        for way in track(turns, subject, console=Console(stderr=True)):
            run(measured, way, ray, subject=subject, folder=folder)
    return measured


def run(measured: Measured, way: str, ray: str, **options: object) -> None:
    """Run one way, and note what it tells of itself."""
    command = [sys.executable, "-m", "benchmarks.scoring_ways", way, json.dumps(options)]
    try:
        finished = run_command([*ALONE, *command], with_this_project(Path(ray))) if way == RAY else run_command(command)
    except CommandFailed as error:
        print(error.errors, file=sys.stderr)
        raise
    told = json.loads(finished.output.splitlines()[-1])
    if told["images"] != measured.images:
        raise RuntimeError(f"{way} gave {told['images']} of {measured.images} predictions")
    for kind in told.keys() & {"cold", "warm"}:
        measured.seconds[way, kind].append(told[kind])
    measured.worker_bytes[way] = max(measured.worker_bytes[way], finished.worker_bytes)


def table(subject: str, measured: Measured, ways: Sequence[str], rounds: int) -> Table:
    """Images/s and ratios."""
    kind = SUBJECTS[subject]
    title = f"{measured.images:,} {kind.name}, {kind.model}, median of {rounds}: images/s"
    shown = Table(title=title, title_justify="left")
    for column in ("", "warm", "of the ceiling", "cold", "cold - warm: s", "largest worker: MB", "goal"):
        shown.add_column(column, justify="left" if column in ("", "goal") else "right")
    for way in ways:
        cold, warm = measured.middle(way, "cold"), measured.middle(way, "warm")
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


def goal(way: str, measured: Measured, beside_others: bool) -> str:
    """What was to be reached, and whether it was."""
    if not beside_others:
        return verdict(0 < measured.worker_bytes[way] <= WORKER_GOAL, f"no worker above {WORKER_GOAL / 1e6:,.0f} MB")
    if way == CEILING:
        return ""
    if way == OURS:
        share = measured.rate(OURS) / measured.rate(CEILING)
        return verdict(share >= CEILING_GOAL, f"at least {CEILING_GOAL} of the ceiling")
    times = measured.rate(OURS) / measured.rate(way)
    least = UDF_GOAL if way == "predict_batch_udf" else 1
    return verdict(times >= least, f"sparkcnn at least {least:g} x ({times:.1f} x)")


if __name__ == "__main__":
    main()
