"""Compare the speed of ingest with the machine's ceiling and with peers: `make bench`, about ten minutes on two cores.

    python -m benchmarks.ingest [--images 20000] [--rounds 3] [--memory 500] [--linearity]

Each way turns 20,000 JPEGs of about 340 x 300 pixels into Parquet of 96 x 96 pixels. The JPEGs are made from three
photographs. Each way runs once per round, in its own process. Every second round runs the ways in reverse order,
because these machines are shared and noisy. A figure is the median of the rounds.

- The ceiling is the speed of one process that decodes (Pillow: draft, resize) and writes, times the number of cores.
  Two cores give less than twice the speed of one, so the next row has one process per core, all at once. Two more rows
  are the same with ingest's own decoder.
- The goals apply to ingest in a session that has already started. The whole job is `sparkcnn ingest` from start to end.
- petastorm's `materialize_dataset` needs OpenCV. It and Ray are installed into the temporary folder. If a peer cannot
  be installed, the table says why. `--peers` without names leaves the peers out.

After that come all of MNIST, and the size of the largest Python worker while ingest reads images of 1 MB. `--linearity`
also ingests 5,000 and 50,000 images. All files are in a temporary folder (TMPDIR says where) and take 3 GB. A large
`--memory` takes more: 1 MB per image.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.goals import verdict
from benchmarks.photographs import SIZE, large, link_first, photographs_in, write_photographs
from benchmarks.processes import CommandFailed, Finished, pip_install, run_command, with_this_project
from benchmarks.ray_data import ISOLATE, RAY_PACKAGES
from cnnlib.image_set.contract import open_image_set
from cnnlib.mnist import MD5 as MNIST_FILES
from cnnlib.mnist import read_mnist_file

CORES = os.cpu_count() or 1
PEERS = ("petastorm", "ray")
OPENCV = "opencv-python-headless==4.10.0.84"
LINEARITY = (5_000, 50_000)
LARGE_BYTES = 1_000_000

# The labels of the table rows.
ONE, AT_ONCE = f"ceiling: one process x {CORES}", f"  {CORES} processes at once"
ONE_OWN, AT_ONCE_OWN = f"  with ingest's decoder: one x {CORES}", f"  with ingest's decoder: {CORES} at once"
INGEST, INGEST_JOB = "ingest, session started", "  whole job"
STARTED = {"petastorm": "petastorm, session started", "ray": "Ray Data, server started"}
WHOLE = {"petastorm": "  petastorm, whole process", "ray": "  Ray Data, whole process"}
MNIST = "MNIST (70,000 IDX), whole job: s"

SPEED_GOAL, MNIST_GOAL_S, WORKER_GOAL_MB, LINEARITY_GOAL = 0.80, 25, 1000, 1.05

# A function that measures one way once, and returns the values by table row.
Way = Callable[[], dict[str, float]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ceiling-images", type=int, default=4_000, help="how many of the images the ceiling takes")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS)
    parser.add_argument("--memory", type=int, default=500, help="number of images of 1 MB to ingest; 0 skips this")
    parser.add_argument("--linearity", action="store_true", help="also ingest 5,000 and 50,000 images: 5 minutes more")
    options = parser.parse_args(arguments)
    console = Console(width=130)
    with tempfile.TemporaryDirectory(prefix="sparkcnn-benchmark-") as name:
        if shutil.disk_usage(name).free < options.memory * LARGE_BYTES:
            parser.error(f"--memory {options.memory} needs {options.memory * LARGE_BYTES / 1e9:.1f} GB in {name}")
        bench = Bench(Path(name), options)
        console.print(bench.speeds())
        if options.memory:
            console.print(bench.memory())


class Bench:
    """One run of the benchmark in its own folder."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self._folder = folder
        self._options = options
        self._source = folder / "photographs"
        self._output = folder / "output"
        self._values: dict[str, list[float]] = defaultdict(list)
        self._failures: dict[str, str] = {}

    # --- the measurements

    def speeds(self) -> Table:
        """Measure every way in rounds, and return the table."""
        self._make_sources()
        ways: dict[str, Way] = {
            ONE: partial(self._ceiling, ONE, 1, "pillow"),
            AT_ONCE: partial(self._ceiling, AT_ONCE, CORES, "pillow"),
            ONE_OWN: partial(self._ceiling, ONE_OWN, 1, "own"),
            AT_ONCE_OWN: partial(self._ceiling, AT_ONCE_OWN, CORES, "own"),
            INGEST: partial(self._ingest, INGEST, self._source, self._options.images),
            INGEST_JOB: self._ingest_job,
            MNIST: self._mnist_job,
            **self._peers(),
        }
        if self._options.linearity:
            for count in LINEARITY:
                ways[linearity_row(count)] = partial(
                    self._ingest, linearity_row(count), self._folder / str(count), count
                )
        turns = [name for turn in range(self._options.rounds) for name in (reversed(ways) if turn % 2 else ways)]
        for name in track(turns, "ingesting", console=Console(stderr=True)):
            self._measure(name, ways[name])
        return self._table()

    def memory(self) -> str:
        """Ingest images of 1 MB, and return a line about the memory of the Python workers."""
        count, source = self._options.memory, self._folder / "large"
        write_photographs(source, count, large)
        mean_mb = mean_bytes(source) / 1e6
        finished = self._run("ingest", {"source": str(source), "output": str(self._output)}, sample_every_s=0.1)
        report = json.loads(finished.output.splitlines()[-1])
        worker_mb = finished.worker_bytes / 1e6
        return (
            f"{count:,} images of {mean_mb:.2f} MB: {count / report['seconds']:,.0f} images/s, largest Python worker "
            f"{worker_mb:,.0f} MB ({verdict(worker_mb <= WORKER_GOAL_MB, f'at most {WORKER_GOAL_MB:,}')})"
        )

    def _make_sources(self) -> None:
        everything = self._folder / "all"
        counts = LINEARITY if self._options.linearity else ()
        write_photographs(everything, max(self._options.images, *counts, 0))
        link_first(self._options.images, everything, self._source)
        for count in counts:
            link_first(count, everything, self._folder / str(count))
        mnist = self._folder / "mnist"
        mnist.mkdir()
        for name in MNIST_FILES:
            (mnist / name).write_bytes(read_mnist_file(name))

    def _peers(self) -> dict[str, Way]:
        """Return the peers that could be installed. Note the reason for each of the others."""
        ways: dict[str, Way] = {}
        for peer, prepare in {"petastorm": self._petastorm, "ray": self._ray}.items():
            if peer in self._options.peers:
                try:
                    ways[peer] = prepare()
                except CommandFailed as error:
                    self._failures[peer] = str(error)
        return ways

    def _measure(self, name: str, way: Way) -> None:
        """Measure a way once. A peer that fails is not tried again. Raises CommandFailed if any other way fails."""
        if name in self._failures:
            return
        try:
            for row, value in way().items():
                self._values[row].append(value)
        except CommandFailed as error:
            if name not in PEERS:
                print(error.errors, file=sys.stderr)
                raise
            self._failures[name] = str(error)
        finally:
            shutil.rmtree(self._output, ignore_errors=True)

    # --- the ways

    def _ceiling(self, row: str, processes: int, decoder: str) -> dict[str, float]:
        images = min(self._options.ceiling_images, self._options.images)
        options = {"images": images, "processes": processes, "decoder": decoder}
        finished = self._run("ceiling", options | {"source": str(self._source), "output": str(self._output)})
        return {row: rate(finished, images) * CORES / processes}

    def _ingest(self, row: str, source: Path, images: int) -> dict[str, float]:
        return {row: rate(self._run("ingest", {"source": str(source), "output": str(self._output)}), images)}

    def _ingest_job(self) -> dict[str, float]:
        seconds = self._job("image_folder", self._source, *f"--image.height {SIZE} --image.width {SIZE}".split())
        return {INGEST_JOB: self._options.images / seconds}

    def _mnist_job(self) -> dict[str, float]:
        return {MNIST: self._job("idx", self._folder / "mnist")}

    def _job(self, source_format: str, source: Path, *settings: str) -> float:
        """Run `sparkcnn ingest` as a user does, and return its seconds."""
        command = [sys.executable, "-m", "jobs.sparkcnn", "ingest", "--source.format", source_format]
        command += ["--source.path", str(source), "--output.path", str(self._output), *settings]
        seconds = run_command(command).seconds
        counts = open_image_set(str(self._output)).counts
        if counts.kept + counts.duplicate != counts.found:
            raise RuntimeError(f"ingest rejected images that are not damaged: {counts}")
        return seconds

    def _petastorm(self) -> Way:
        packages = self._folder / "opencv"
        pip_install(packages, OPENCV)

        def way() -> dict[str, float]:
            options = {"source": str(self._source), "output": str(self._output)}
            return self._peer("petastorm", self._run("petastorm", options, with_this_project(packages)))

        return way

    def _ray(self) -> Way:
        packages = self._folder / "ray"
        pip_install(packages, *RAY_PACKAGES)

        def way() -> dict[str, float]:
            options = {"source": str(self._source), "output": str(self._output), "size": SIZE}
            # Ray makes sockets in it, and their paths may have only about a hundred characters.
            options["temporary"] = str(self._folder / "r")
            command = [*ISOLATE, sys.executable, "-m", "benchmarks.ingest_ray", json.dumps(options)]
            return self._peer("ray", run_command(command, with_this_project(packages)))

        return way

    def _peer(self, peer: str, finished: Finished) -> dict[str, float]:
        images = self._options.images
        return {STARTED[peer]: rate(finished, images), WHOLE[peer]: images / finished.seconds}

    def _run(self, way: str, options: Mapping[str, object], *environment: dict[str, str], **how: float) -> Finished:
        command = [sys.executable, "-m", "benchmarks.ingest_ways", way, json.dumps(options)]
        return run_command(command, *environment, **how)

    # --- the table

    def _table(self) -> Table:
        photographs = f"{self._options.images:,} JPEGs of {mean_bytes(self._source) / 1000:.0f} KB to {SIZE} x {SIZE}"
        title = f"{photographs}: images/s, {CORES} cores, median of {self._options.rounds}"
        table = Table(title=title, title_justify="left", caption_justify="left")
        for column in ("", "median", "min .. max", f"of one x {CORES}", f"of {CORES} at once", "goal"):
            table.add_column(column, justify="left" if column in ("", "goal") else "right")
        for row in (ONE, AT_ONCE, ONE_OWN, AT_ONCE_OWN):
            self._add_speed(table, row)
        table.add_section()
        reached = self._median(INGEST) / self._median(ONE)
        self._add_speed(table, INGEST, verdict(reached >= SPEED_GOAL, f"at least {SPEED_GOAL:.2f} of one x {CORES}"))
        self._add_speed(table, INGEST_JOB)
        table.add_section()
        for peer in self._options.peers:
            self._add_peer(table, peer)
        table.caption = "\n".join(f"{peer} was not measured: {why}" for peer, why in self._failures.items()) or None
        table.add_section()
        if self._options.linearity:
            self._add_linearity(table)
        self._add_row(table, MNIST, ".1f", "", "", verdict(self._median(MNIST) < MNIST_GOAL_S, f"under {MNIST_GOAL_S}"))
        return table

    def _add_peer(self, table: Table, peer: str) -> None:
        if peer in self._failures:
            return
        times = self._median(INGEST) / self._median(STARTED[peer])
        self._add_speed(table, STARTED[peer], verdict(times > 1, f"ingest ahead ({times:.1f} x)"))
        times = self._median(INGEST_JOB) / self._median(WHOLE[peer])
        self._add_speed(table, WHOLE[peer], f"ingest {times:.1f} x")

    def _add_linearity(self, table: Table) -> None:
        few, many = map(linearity_row, LINEARITY)
        cost_ratio = self._median(few) / self._median(many)
        self._add_speed(table, few)
        goal = f"time per image at most {LINEARITY_GOAL} x as long ({cost_ratio:.2f} x)"
        self._add_speed(table, many, verdict(cost_ratio <= LINEARITY_GOAL, goal))

    def _add_speed(self, table: Table, row: str, goal: str = "") -> None:
        ratios = (f"{self._median(row) / self._median(ceiling):.2f}" for ceiling in (ONE, AT_ONCE))
        self._add_row(table, row, ",.0f", *ratios, goal)

    def _add_row(self, table: Table, row: str, form: str, *rest: str) -> None:
        low, high = min(self._values[row]), max(self._values[row])
        table.add_row(row, f"{self._median(row):{form}}", f"{low:{form}} .. {high:{form}}", *rest)

    def _median(self, row: str) -> float:
        return statistics.median(self._values[row])


def linearity_row(count: int) -> str:
    """Return the label of the row for an ingest of `count` images."""
    return f"ingest of {count:,}, session started"


def rate(finished: Finished, images: int) -> float:
    """Return the images/s that a way reports. Raises RuntimeError if it did not write all images."""
    report = json.loads(finished.output.splitlines()[-1])
    if report["images"] != images:
        raise RuntimeError(f"{report['images']} of {images} images were written")
    return images / report["seconds"]


def mean_bytes(source: Path) -> float:
    """Return the mean file size of the photographs in a folder."""
    return statistics.fmean(path.stat().st_size for path in photographs_in(source))


if __name__ == "__main__":
    main()
