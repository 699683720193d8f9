"""How TensorFlow is imported: sooner in tasks, with nothing changed for later imports."""

from tests.unit.feeds import run_python

IN_TASK = """
import sys
from cnnlib.quiet import import_tensorflow_quietly
import_tensorflow_quietly(in_task=True)
import tensorflow, keras
print(sorted({"matplotlib", "sklearn"} & sys.modules.keys()))
import matplotlib, sklearn
print(keras.ops.convert_to_numpy(keras.layers.Dense(1, kernel_initializer="ones")(keras.ops.ones((1, 2)))).tolist())
"""


def test_task_imports_neither_plots_nor_wrappers_but_may_later() -> None:
    ended = run_python(IN_TASK)
    assert ended.stdout.splitlines() == ["[]", "[[2.0]]"], ended.stderr
