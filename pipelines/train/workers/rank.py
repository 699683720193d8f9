"""What runs in a rank's process: `python -m pipelines.train.workers.rank`, started by `pipelines.train.workers.launch`.

It reads what to do from its standard input, trains, and leaves a result file: the weights' SHA-256, or the error
that a user can mend.
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
from cnnlib.errors import SparkcnnError
from cnnlib.quiet import import_tensorflow_quietly
from pipelines.train.workers.rank_process import end_with_standard_input, read_spec

if TYPE_CHECKING:  # it imports TensorFlow
    from cnnlib.training.ranks import Ranks

REFUSED_STATUS = 2


def main() -> int:
    """Train as this rank, and give the exit status."""
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
    import_tensorflow_quietly()
    import tensorflow as tf

    from cnnlib.image_set.contract import open_image_set
    from pipelines.tracking.store import use_store
    from pipelines.tracking.tracker import Tracker
    from pipelines.train.tracked_fit import fit_and_publish
    from pipelines.train.workers.gpus import check_gpu

    tf.config.threading.set_intra_op_parallelism_threads(spec["cpus"])
    # A sum over GPUs is under way beside other work, one over CPUs takes a thread's place.
    tf.config.threading.set_inter_op_parallelism_threads(spec["cpus"] + bool(spec["gpu"]))
    if spec["gpu"]:
        check_gpu(os.environ["CUDA_VISIBLE_DEVICES"], f"rank {spec['rank']}")
    settings = TrainSettings(**spec["settings"])
    tracker = Tracker(**spec["tracker"])
    use_store(tracker.uri)
    ranks = _connected(spec)
    model = fit_and_publish(open_image_set(settings.data.path), settings, tracker, ranks=ranks, narrator=_Told)
    # None leaves before rank 0 has published all: to TensorFlow's collectives a rank that is gone has failed.
    ranks.gather([0.0])
    digest = hashlib.sha256()
    for weights in model.get_weights():
        digest.update(weights.tobytes())
    return {"weights_sha256": digest.hexdigest()}


def _connected(spec: dict[str, Any]) -> "Ranks":
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


class _Told:
    """Has the MLflow run show rank 0's progress, which the driver looks at."""

    def __init__(self, publisher: Any) -> None:
        self._publisher = publisher
        self._lines: list[str] = []
        self._progress: dict[str, Any] = {}

    def step(self, done: int, total: int, note: str) -> None:
        self._progress = {"done": done, "total": total, "note": note}
        self._tell()

    def say(self, line: str) -> None:
        self._lines.append(line)
        self._tell()

    def _tell(self) -> None:
        # A tag holds some thousand characters: the driver has seen the earlier lines.
        self._publisher.tell({**self._progress, "said": len(self._lines), "lines": self._lines[-5:]})


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # The threads by which TensorFlow's collectives look after other ranks would hold an exit up for half a minute.
    os._exit(status)
