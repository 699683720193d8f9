"""An image as a sequence of its rows, read by an LSTM."""

import keras


def lstm_rows(pixels: keras.KerasTensor, *, classes: int, units: int = 128) -> keras.KerasTensor:
    """Build an LSTM over rows: (batch, height, width, channels) -> logits (batch, classes).

    After Hochreiter and Schmidhuber, "Long Short-Term Memory" (1997). A step is given a row of pixels (width x
    channels); the state behind the last row is classified.
    """
    _, height, width, channels = pixels.shape
    rows = keras.layers.Reshape((height, width * channels), name="rows")(pixels)
    state = keras.layers.LSTM(units, name="lstm")(rows)
    return keras.layers.Dense(classes, name="logits")(state)
