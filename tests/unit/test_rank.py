"""The real process of a rank, up to the point where it would train."""

import json
from pathlib import Path

import numpy as np

from tests.unit.feeds import run_python
from tests.unit.image_sets import write_image_set

REPORT_THREADS = """
import json, sys
from pipelines.train import tracked_fit
from pipelines.train.workers import rank
import tensorflow as tf

def fit_and_publish(*_, **__):
    threading = tf.config.threading
    print(json.dumps([threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads()]))
    sys.exit()

tracked_fit.fit_and_publish = fit_and_publish
rank._train(json.loads(sys.argv[1]))
"""


def test_tensorflow_gets_one_thread_per_task_cpu(tmp_path: Path) -> None:
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
    ended = run_python(REPORT_THREADS, json.dumps(spec))
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == [3, 3]
