"""How fast scoring is, beside the model's ceiling and its peers, on 240,000 images of MNIST's size.

    python -m benchmarks.scoring [--images 240000] [--rounds 3]

LeNet scores the same Parquet in several ways, each in a process of its own once a round, and the rounds are
interleaved, now in this order, now in the other, for these machines are shared and noisy. A figure is the median of the
rounds. Cold: the session is there, but no Python worker, and none has imported TensorFlow; warm: a second run in the
same session. The ceiling is one process on all cores with the images in memory, and its model loaded and warm.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.goals import verdict
from benchmarks.processes import CommandFailed, run_command

CEILING = "ceiling"
OURS = "sparkcnn"
NAMES = {
    CEILING: "ceiling: one process, all cores, in memory",
    OURS: "sparkcnn score",
    "predict_batch_udf": "predict_batch_udf around model.predict",
    "spark_udf": "mlflow.pyfunc.spark_udf",
}
CEILING_GOAL, UDF_GOAL = 0.95, 2.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=240_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(arguments)
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="sparkcnn-benchmark-") as folder:
        images = measured("prepare", folder=folder, images=given.images)["images"]
        turns = [way for turn in range(given.rounds) for way in (reversed(NAMES) if turn % 2 else NAMES)]
        for way in track(turns, "scoring", console=Console(stderr=True)):
            told = measured(way, folder=folder)
            if told["images"] != images:
                raise RuntimeError(f"{way} gave {told['images']} of {images} predictions")
            for kind in ("cold", "warm"):
                seconds[way, kind].append(told[kind])
    middle = {key: statistics.median(values) for key, values in seconds.items()}
    Console(width=130).print(table(images, given.rounds, middle))


def measured(way: str, **options: object) -> dict[str, float]:
    """What one way tells of itself."""
    try:
        finished = run_command([sys.executable, "-m", "benchmarks.scoring_ways", way, json.dumps(options)])
    except CommandFailed as error:
        print(error.errors, file=sys.stderr)
        raise
    return json.loads(finished.output.splitlines()[-1])


def table(images: int, rounds: int, seconds: dict[tuple[str, str], float]) -> Table:
    """Images/s and ratios."""
    shown = Table(title=f"{images:,} images of 28 x 28, LeNet, median of {rounds}: images/s", title_justify="left")
    for column in ("", "warm", "of the ceiling", "cold", "cold - warm: s", "goal"):
        shown.add_column(column, justify="left" if column in ("", "goal") else "right")
    rates = {way: images / seconds[way, "warm"] for way in NAMES}
    for way, name in NAMES.items():
        cold, warm = seconds[way, "cold"], seconds[way, "warm"]
        share = rates[way] / rates[CEILING]
        row = [name, f"{rates[way]:,.0f}", f"{share:.2f}", f"{images / cold:,.0f}", f"{cold - warm:.1f}"]
        shown.add_row(*row, goal(way, rates))
    return shown


def goal(way: str, rates: dict[str, float]) -> str:
    """What was to be reached, and whether it was."""
    if way == CEILING:
        return ""
    if way == OURS:
        share = rates[OURS] / rates[CEILING]
        return verdict(share >= CEILING_GOAL, f"at least {CEILING_GOAL} of the ceiling")
    times = rates[OURS] / rates[way]
    least = UDF_GOAL if way == "predict_batch_udf" else 1
    return verdict(times >= least, f"sparkcnn at least {least:g} x ({times:.1f} x)")


if __name__ == "__main__":
    main()
