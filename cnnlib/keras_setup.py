"""Keras as this project needs it: on TensorFlow, with pixels in the order of `ImageSpec`, in 32 bits.

A file keras.json in the user's home can change these settings for every program, and so can some variables. With
channels first, a network would convolve over columns and colours, and still learn something. So all of it is set when
Keras is imported, and checked where a model is built.
"""

import os
import sys

from cnnlib.errors import HostError

_BACKEND, _VARIABLE = "tensorflow", "KERAS_BACKEND"
_DATA_FORMAT, _FLOATX, _EPSILON = "channels_last", "float32", 1e-7
# Keras ends every training early if these are set.
_LIMITS = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH")


def set_backend() -> None:
    """Let Keras run on TensorFlow, unless it is imported already. Keras reads the variable when it is imported."""
    if "keras" not in sys.modules:
        os.environ[_VARIABLE] = _BACKEND


def import_keras() -> None:
    """Import Keras, and set it up as this project needs it. If it is imported already, nothing is changed.

    Raises HostError if Keras cannot read its own settings.
    """
    if "keras" in sys.modules:
        return
    set_backend()
    limits = {name: os.environ.pop(name) for name in _LIMITS if name in os.environ}
    try:
        import keras
    except ValueError as error:
        if "configuration" not in str(error):
            raise
        raise HostError(f"Keras cannot read its keras.json: {error}; correct the file, or remove it") from error
    finally:
        os.environ.update(limits)
    keras.config.set_floatx(_FLOATX)
    keras.config.set_epsilon(_EPSILON)
    keras.config.set_image_data_format(_DATA_FORMAT)


def check_keras() -> None:
    """Raise HostError if another program in this process has set Keras up otherwise, as a notebook may do."""
    import keras

    backend = keras.config.backend()
    if backend != _BACKEND:
        raise HostError(
            f"Keras runs on {backend} in this process, but sparkcnn needs {_BACKEND}; restart Python, and import "
            f"sparkcnn before Keras, or set {_VARIABLE}={_BACKEND}"
        )
    needed = {"image_data_format": _DATA_FORMAT, "floatx": _FLOATX, "max_epochs": None, "max_steps_per_epoch": None}
    for name, value in needed.items():
        # Keras of the lts profile has no limits.
        found = getattr(keras.config, name, lambda value=value: value)()
        if found != value:
            raise HostError(
                f"Keras has {name}={found} in this process, but sparkcnn needs {value}; call "
                f"keras.config.set_{name}({value!r})"
            )
