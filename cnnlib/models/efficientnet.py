"""EfficientNetV2: depth, width and image size scaled together."""

from functools import partial

from keras import applications

from cnnlib.models.applications import TORCH, keras_application

ARCHITECTURES = (
    keras_application(
        "efficientnet_v2_b0",
        # build_model standardises the pixels.
        partial(applications.EfficientNetV2B0, include_preprocessing=False),
        "Tan and Le 2021",
        TORCH,
        dropout=0.2,
    ),
)
