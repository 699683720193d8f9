"""MobileNet, both versions: depthwise separable convolutions, for phones."""

from keras import applications

from cnnlib.models.applications import SYMMETRIC, keras_application

ARCHITECTURES = (
    keras_application("mobilenet", applications.MobileNet, "Howard et al. 2017", SYMMETRIC, dropout=1e-3),
    keras_application("mobilenet_v2", applications.MobileNetV2, "Sandler et al. 2018", SYMMETRIC),
)
