"""An LSTM that reads an image row by row."""

import keras

from cnnlib.models.architecture import DIGIT, Architecture


def lstm_rows(pixels: keras.KerasTensor, *, classes: int, units: int = 128) -> keras.KerasTensor:
    """Build an LSTM over rows: (batch, height, width, channels) -> logits (batch, classes).

    Source: Hochreiter and Schmidhuber, "Long Short-Term Memory" (1997). Each step gets one row of pixels, (width x
    channels) values. A dense layer classifies the state after the last row.
    """
    _, height, width, channels = pixels.shape
    rows = keras.layers.Reshape((height, width * channels), name="rows")(pixels)
    state = keras.layers.LSTM(units, name="lstm")(rows)
    return keras.layers.Dense(classes, name="logits")(state)


ARCHITECTURES = (Architecture("lstm_rows", lstm_rows, "Hochreiter and Schmidhuber 1997", DIGIT),)
