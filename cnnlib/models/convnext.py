"""ConvNeXt: a ResNet with the design choices of vision transformers."""

from functools import partial

from keras import applications

from cnnlib.models.applications import TORCH, keras_application

ARCHITECTURES = (
    keras_application(
        "convnext_tiny",
        # build_model standardises the pixels.
        partial(applications.ConvNeXtTiny, include_preprocessing=False),
        "Liu et al. 2022",
        TORCH,
    ),
)
