"""The program of a rank's process: `python -m pipelines.train.workers.rank`. `launch` starts it.

It reads its spec from standard input, trains, and writes a result file: the SHA-256 of the weights, or the error that
the user can correct.
"""

import hashlib
import json
import os
import socket
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnlib.config import TrainSettings
from cnnlib.errors import HostError, SparkcnnError
from cnnlib.garbage import collect_garbage_rarely
from cnnlib.quiet import import_tensorflow_quietly
from pipelines.train.workers.rank_process import end_with_standard_input, read_spec

if TYPE_CHECKING:  # these import TensorFlow
    from cnnlib.training.ranks import Ranks
    from pipelines.tracking.publisher import Publisher

REFUSED_STATUS = 2


def main() -> int:
    """Train as this rank, and return the exit status."""
    collect_garbage_rarely()
    spec = read_spec()
    end_with_standard_input()
    result_file = Path(spec["result"])
    try:
        result = _train(spec)
    except SparkcnnError as error:
        result_file.write_text(
            json.dumps({"refused": type(error).__name__, "message": error.message, "quoted": error.quoted})
        )
        print(error.message, file=sys.stderr)
        return REFUSED_STATUS
    except Exception:
        traceback.print_exc()
        return 1
    result_file.write_text(json.dumps(result))
    return 0


def _train(spec: dict[str, Any]) -> dict[str, Any]:
    """Train as the spec says, and return the content of the result file."""
    import_tensorflow_quietly(in_task=True)
    import tensorflow as tf

    from cnnlib.image_set.contract import open_image_set
    from pipelines.tracking.store import use_store
    from pipelines.tracking.tracker import Tracker
    from pipelines.train.tracked_fit import fit_and_publish

    tf.config.threading.set_intra_op_parallelism_threads(spec["cpus"])
    # A sum over GPUs needs a thread beside the other work. A sum over CPUs runs in the thread of another operation.
    tf.config.threading.set_inter_op_parallelism_threads(spec["cpus"] + bool(spec["gpu"]))
    if spec["gpu"]:
        check_gpu(os.environ["CUDA_VISIBLE_DEVICES"], f"rank {spec['rank']}")
    settings = TrainSettings(**spec["settings"])
    tracker = Tracker(**spec["tracker"])
    use_store(tracker.uri)
    ranks = _connect(spec)
    image_set = open_image_set(settings.data.path)
    model = fit_and_publish(image_set, settings, tracker, ranks=ranks, make_reporter=_RunReporter)
    # No rank ends before rank 0 has published everything. TensorFlow's collectives would count it as failed.
    ranks.gather([0.0])
    digest = hashlib.sha256()
    for weights in model.get_weights():
        digest.update(weights.tobytes())
    return {"weights_sha256": digest.hexdigest()}


def _connect(spec: dict[str, Any]) -> "Ranks":
    """Connect to the other ranks: in a ring on CPUs, with TensorFlow's collectives on GPUs."""
    from cnnlib.training.ranks import ALONE, CollectiveRanks, RingRanks
    from cnnlib.training.ring import Ring

    rank, addresses = spec["rank"], spec["addresses"]
    if len(addresses) == 1:
        return ALONE
    if spec["gpu"]:
        return CollectiveRanks(rank, addresses)
    listener = socket.socket(fileno=spec["listener"])
    ring = Ring(rank, addresses, listener, spec["secret"].encode())
    listener.close()
    return RingRanks(rank, len(addresses), ring)


def check_gpu(address: str, owner: str) -> None:
    """Raise HostError if TensorFlow finds no GPU. Without this check it would silently train on the CPU.

    Call it in a process that sees only the GPU that Spark assigned, with the `address` and the `owner` of that GPU.
    """
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        raise HostError(
            f"Spark assigned GPU {address} to {owner}, but TensorFlow finds no such GPU; check its driver and "
            "spark.executor.resource.gpu.discoveryScript"
        )


class _RunReporter:
    """Report the progress of rank 0 in the MLflow run, where the driver reads it."""

    def __init__(self, publisher: "Publisher") -> None:
        self._publisher = publisher
        self._lines: list[str] = []
        self._progress: dict[str, Any] = {}

    def step(self, done: int, total: int, note: str) -> None:
        self._progress = {"done": done, "total": total, "note": note}
        self._show()

    def say(self, line: str) -> None:
        self._lines.append(line)
        self._show()

    def _show(self) -> None:
        # A tag holds only some thousand characters. The driver has already seen the earlier lines.
        self._publisher.show_progress({**self._progress, "said": len(self._lines), "lines": self._lines[-5:]})


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # A normal exit would wait half a minute for the threads in which TensorFlow's collectives watch other ranks.
    os._exit(status)
