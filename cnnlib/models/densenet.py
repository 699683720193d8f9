"""DenseNet: within a block, each layer gets the maps of all layers before it."""

from keras import applications

from cnnlib.models.applications import TORCH, keras_application

SOURCE = "Huang et al. 2017"

ARCHITECTURES = (
    keras_application("densenet121", applications.DenseNet121, SOURCE, TORCH),
    keras_application("densenet169", applications.DenseNet169, SOURCE, TORCH),
)
