"""Importing TensorFlow without the lines that it writes before its log level is heard."""

import os
import re
import sys
import tempfile

# Notes of the C++ log, e.g. "I0000 00:00:1795305437.127974 22705 cudart_stub.cc:31] Could not find cuda drivers".
# TensorFlow 2.18 calls it an error (E) that its parts announce cuDNN, cuBLAS and cuFFT twice, GPU or not.
_NOTE = re.compile(
    rb"^([IW]\d{4} \d\d:\d\d:|E\d{4} .* Unable to register cu\w+ factory:"
    rb"|WARNING: All log messages before absl::InitializeLog)"
)


def import_tensorflow_quietly() -> None:
    """Import TensorFlow; whatever it writes to standard error comes through, but for notes of its C++ log.

    TF_CPP_MIN_LOG_LEVEL, where it is set already, stands for what comes later; else only faults are told.
    """
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    standard_error = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            import tensorflow  # noqa: F401
        finally:
            os.dup2(standard_error, 2)
            held_back.seek(0)
            for line in held_back:
                if not _NOTE.match(line):
                    os.write(standard_error, line)
            os.close(standard_error)
