"""Import TensorFlow without the lines that it writes before it reads its log level."""

import os
import re
import sys
import tempfile

# Lines of the C++ log, e.g. "I0000 00:00:1795305437.127974 22705 cudart_stub.cc:31] Could not find cuda drivers".
# TensorFlow 2.18 logs an error (E) because its parts register cuDNN, cuBLAS and cuFFT twice, with or without a GPU.
_LOG_LINE = re.compile(
    rb"^([IW]\d{4} \d\d:\d\d:|E\d{4} .* Unable to register cu\w+ factory:"
    rb"|WARNING: All log messages before absl::InitializeLog)"
)


def import_tensorflow_quietly() -> None:
    """Import TensorFlow, and drop notes and warnings of its C++ log from standard error. Other lines come through.

    For later lines, a TF_CPP_MIN_LOG_LEVEL that is already set stays. Otherwise TensorFlow logs only fatal errors.
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
                if not _LOG_LINE.match(line):
                    os.write(standard_error, line)
            os.close(standard_error)
