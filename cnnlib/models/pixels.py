"""The part that every model begins with: pixels in, standardised numbers out."""

import keras

# The name of the layer with mean and deviation.
STANDARDISE = "standardise"


def standardise(
    images: keras.KerasTensor, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> keras.KerasTensor:
    """(batch, height, width, channels) uint8 -> float32 of mean 0 and deviation 1 over the training set.

    `mean` and `std` are per channel, in 0 to 1; without them pixels only come to 0 to 1. A channel that never
    varies keeps its scale. In float32 whatever the rest of the model computes in.
    """
    values = keras.layers.Rescaling(1 / 255, dtype="float32", name="to_unit_range")(images)
    if mean is None or std is None:
        return values
    variance = [deviation**2 or 1.0 for deviation in std]
    return keras.layers.Normalization(mean=list(mean), variance=variance, dtype="float32", name=STANDARDISE)(values)
