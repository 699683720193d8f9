"""A rank without TensorFlow: it reports the spec that it received, and then acts as the spec says.

The tests send only this file to Spark's Python workers. So it imports the project, but nothing of the tests.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from pipelines.train.workers.rank_process import end_with_standard_input, read_spec

REPORTED = ("CUDA_VISIBLE_DEVICES", "SPARKCNN_TEST")


def main() -> None:
    spec = read_spec()
    end_with_standard_input()
    rank = spec["rank"]
    report = {
        **{name: spec[name] for name in ("rank", "addresses", "gpu", "cpus")},
        "pid": os.getpid(),
        "parent": os.getppid(),
        "folder": os.getcwd(),
        "environment": {name: os.environ.get(name) for name in REPORTED},
    }
    Path(spec["result"]).write_text(json.dumps(report))
    # The tests wait for this file, so it must appear complete.
    unfinished = Path(spec["reports"], f".{rank}.json")
    unfinished.write_text(json.dumps(report))
    unfinished.rename(Path(spec["reports"], f"{rank}.json"))
    ACTS[spec["acts"][rank]](spec)


def end(spec: dict) -> None:
    print("all is done")


def fail(spec: dict) -> None:
    for number in range(30):
        print(f"line {number}")
    sys.exit("the disk is full")


def refuse(spec: dict) -> None:
    Path(spec["result"]).write_text(json.dumps({"refused": "ConfigError", "message": "train.epochs is odd"}))
    sys.exit(2)


def wait(spec: dict) -> None:
    time.sleep(600)


def suffer(spec: dict) -> None:
    """Fail after SIGTERM, as a real rank does if its connection to another rank breaks."""

    def end_badly(number: int, frame: object) -> None:
        print("connection reset by peer", flush=True)
        os._exit(1)

    signal.signal(signal.SIGTERM, end_badly)
    wait(spec)


def ignore(spec: dict) -> None:
    """Ignore SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wait(spec)


ACTS = {act.__name__: act for act in (end, fail, refuse, wait, suffer, ignore)}

if __name__ == "__main__":
    main()
