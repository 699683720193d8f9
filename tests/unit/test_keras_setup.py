"""Keras is what this project needs, however the user's machine sets it up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

OTHERWISE = {"backend": "jax", "image_data_format": "channels_first", "floatx": "float16", "epsilon": 0.5}

IMPORTED_BY_US = """
import os
from cnnlib.models import build_model
model = build_model("lenet", image_shape=(28, 28, 1), classes=2)
import keras
config = keras.config
print(config.backend(), config.image_data_format(), config.floatx(), config.epsilon())
print(config.max_epochs(), config.max_steps_per_epoch(), os.environ["KERAS_MAX_EPOCHS"])
print(model.get_layer("conv_1").data_format, model.get_layer("conv_1").compute_dtype)
"""
IMPORTED_BEFORE = """
import keras
from cnnlib.errors import HostError
from cnnlib.models import build_model
try:
    build_model("lenet", image_shape=(28, 28, 1), classes=2)
except HostError as error:
    print(error.message)
"""


def run(code: str, home: Path, **variables: str) -> list[str]:
    """Run code in a new process whose Keras reads `home / keras.json`, and return the lines that it prints.

    The lines of standard error come last.
    """
    environment = {**os.environ, "KERAS_HOME": str(home), "TF_CPP_MIN_LOG_LEVEL": "3", **variables}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines() + done.stderr.splitlines()


def test_files_and_variables_of_the_user_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "keras.json").write_text(json.dumps(OTHERWISE))
    variables = {"KERAS_BACKEND": "torch", "KERAS_MAX_EPOCHS": "1", "KERAS_MAX_STEPS_PER_EPOCH": "1"}
    # TensorFlow writes nothing either, for example into a notebook.
    assert run(IMPORTED_BY_US, tmp_path, **variables) == [
        "tensorflow channels_last float32 1e-07",
        "None None 1",
        "channels_last float32",
    ]


@pytest.mark.full
@pytest.mark.parametrize(
    ("setting", "value", "needed"),
    [("image_data_format", "channels_first", "'channels_last'"), ("floatx", "float16", "'float32'")],
)
def test_keras_that_was_set_up_before_is_refused(tmp_path: Path, setting: str, value: str, needed: str) -> None:
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "tensorflow", setting: value}))
    line = run(IMPORTED_BEFORE, tmp_path)[0]
    assert line.startswith(f"Keras has {setting}={value} in this process")
    assert line.endswith(f"call keras.config.set_{setting}({needed})")


@pytest.mark.full
def test_limit_of_epochs_is_refused(tmp_path: Path) -> None:
    line = run(IMPORTED_BEFORE, tmp_path, KERAS_MAX_EPOCHS="1")[0]
    assert line.startswith("Keras has max_epochs=1 in this process, but sparkcnn needs None")


@pytest.mark.full
def test_file_that_keras_cannot_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "keras.json").write_text(json.dumps({"floatx": "float8"}))
    code = """
from cnnlib.errors import HostError
from cnnlib.quiet import import_tensorflow_quietly
try:
    import_tensorflow_quietly()
except HostError as error:
    print(error.message)
"""
    line = run(code, tmp_path)[0]
    assert line.startswith("Keras cannot read its keras.json: Invalid `floatx` configuration")
