"""Import TensorFlow with oneDNN, and without the lines that it writes before it reads its log level."""

import gc
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from cnnlib.garbage import no_garbage_collection
from cnnlib.keras_setup import import_keras

# Lines of the C++ log, e.g. "I0000 00:00:1795305437.127974 22705 cudart_stub.cc:31] Could not find cuda drivers".
# TensorFlow 2.18 logs an error (E) because its parts register cuDNN, cuBLAS and cuFFT twice, with or without a GPU.
_LOG_LINE = re.compile(
    rb"^([IW]\d{4} \d\d:\d\d:|E\d{4} .* Unable to register cu\w+ factory:"
    rb"|WARNING: All log messages before absl::InitializeLog)"
)


# Keras imports these, where they are installed, for its wrappers of scikit-learn and for its plots. They take 2.2 to
# 3.4 of the 9.4 seconds until a new process has TensorFlow, and no Spark task or rank of a training uses them.
_FOR_NOTEBOOKS = ("matplotlib", "sklearn")


# By default, TensorFlow uses oneDNN only on x86 processors with AVX-512 VNNI. It is faster on those with AVX2 too.
# On an AMD EPYC, a training step of LeNet, ResNet-18 and ResNet-50 took 0.61, 0.68 and 0.39 of the time. And without
# oneDNN, TensorFlow cannot compute grouped convolutions on CPUs.
_X86 = ("x86_64", "AMD64")


def set_tensorflow_defaults() -> None:
    """Let TensorFlow log only fatal errors, and use oneDNN on x86. Variables that are already set stay.

    TensorFlow reads them when it is imported.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if platform.machine() in _X86:
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def import_tensorflow_quietly(in_task: bool = False) -> None:
    """Import TensorFlow, and drop notes and warnings of its C++ log from standard error. Other lines come through.

    It calls `set_tensorflow_defaults` first, and sets Keras up as `cnnlib.keras_setup` says. Raises HostError if Keras
    cannot read its settings.
    With `in_task`, `keras.wrappers` and `keras.visualization` do not work in this process, which starts sooner.
    """
    if "tensorflow" in sys.modules and "keras" in sys.modules:
        return
    set_tensorflow_defaults()
    sys.stderr.flush()
    standard_error = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            with _hidden(_FOR_NOTEBOOKS if in_task else ()), no_garbage_collection():
                import_keras()
                import tensorflow  # noqa: F401
            if in_task:
                # PySpark collects garbage after every task, and would visit all of TensorFlow's objects: 0.25 s.
                gc.freeze()
        finally:
            os.dup2(standard_error, 2)
            held_back.seek(0)
            for line in held_back:
                if not _LOG_LINE.match(line):
                    os.write(standard_error, line)
            os.close(standard_error)


@contextmanager
def _hidden(modules: tuple[str, ...]) -> Iterator[None]:
    """Make imports of these modules fail within the block. Modules that are already imported stay as they are.

    Python refuses to import a module whose entry in `sys.modules` is None.
    """
    hidden = [name for name in modules if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
