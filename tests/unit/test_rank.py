"""The real process of a rank, up to the point where it would train."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.unit.feeds import run_python
from tests.unit.image_sets import write_image_set

REPORT = """
import json, sys
from pipelines.train.workers import rank

def report(spec):
    import tensorflow as tf

    threading = tf.config.threading
    print(json.dumps([threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads()]))
    print(json.dumps(sorted({"matplotlib", "sklearn"} & sys.modules.keys())))
    import matplotlib, sklearn
    sys.exit()

rank._connect = report
rank._train(json.loads(sys.argv[1]))
"""


@pytest.mark.full
def test_rank_has_a_thread_per_cpu_and_imports_no_plots(tmp_path: Path) -> None:
    images = np.zeros((4, 4, 4, 1), np.uint8)
    image_set = write_image_set(tmp_path / "set", images, [0, 1] * 2, ["train"] * 4, classes=("a", "b"))
    spec = {
        "rank": 0,
        "addresses": ["127.0.0.1:1"],
        "cpus": 3,
        "gpu": False,
        "settings": {"data": {"path": image_set.folder.uri}},
        "tracker": {"run_id": "none", "experiment_id": "0", "uri": f"sqlite:///{tmp_path}/mlflow.db"},
    }
    ended = run_python(REPORT, json.dumps(spec))
    assert ended.returncode == 0, ended.stderr
    threads, not_needed = map(json.loads, ended.stdout.splitlines())
    assert threads == [3, 3]
    # Keras would import them if they were not hidden from it. A user's model may still import them.
    assert not_needed == []
