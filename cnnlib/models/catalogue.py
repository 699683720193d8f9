"""Every architecture by name: what builds it, for which images, and where it is described."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import keras
from keras import applications

from cnnlib.models.alexnet import alexnet
from cnnlib.models.applications import application, vgg_application
from cnnlib.models.googlenet import googlenet
from cnnlib.models.lenet import lenet
from cnnlib.models.lstm_rows import lstm_rows
from cnnlib.models.mlp import mlp
from cnnlib.models.nin import nin
from cnnlib.models.resnet import resnet, resnext50
from cnnlib.models.shufflenet import shufflenet, shufflenet_v2
from cnnlib.models.vgg import vgg11

DIGIT = (28, 28, 1)
CIFAR = (32, 32, 3)
IMAGENET = (224, 224, 3)


@dataclass(frozen=True)
class Architecture:
    """A family's function, and what is known of it.

    `build` takes (pixels, classes=…, **its own options) and gives logits; pixels (batch, height, width, channels)
    float32 are standardised already. `default_shape` (height, width, channels) is that of the images it was described
    for, `smallest_side` in pixels that of the smallest it can be built for.
    """

    build: Callable[..., keras.KerasTensor]
    source: str
    default_shape: tuple[int, int, int] = IMAGENET
    smallest_side: int = 1


VGG = "Simonyan and Zisserman 2014"
RESNET = "He et al. 2015"
DENSENET = "Huang et al. 2017"

ARCHITECTURES = {
    "mlp": Architecture(mlp, "LeCun et al. 1998", DIGIT),
    "lenet": Architecture(lenet, "LeCun et al. 1998", DIGIT, 16),
    "alexnet": Architecture(alexnet, "Krizhevsky 2014", smallest_side=63),
    "vgg11": Architecture(vgg11, VGG, smallest_side=32),
    "vgg16": Architecture(partial(vgg_application, network=applications.VGG16), VGG, smallest_side=32),
    "vgg19": Architecture(partial(vgg_application, network=applications.VGG19), VGG, smallest_side=32),
    "nin": Architecture(nin, "Lin et al. 2013", CIFAR, 4),
    "googlenet": Architecture(googlenet, "Szegedy et al. 2014", smallest_side=4),
    "inception_v3": Architecture(
        partial(application, network=applications.InceptionV3), "Szegedy et al. 2015", (299, 299, 3), 75
    ),
    "resnet18": Architecture(partial(resnet, blocks=(2, 2, 2, 2)), RESNET, smallest_side=4),
    "resnet34": Architecture(partial(resnet, blocks=(3, 4, 6, 3)), RESNET, smallest_side=4),
    "resnet50": Architecture(partial(application, network=applications.ResNet50), RESNET, smallest_side=32),
    "resnet101": Architecture(partial(application, network=applications.ResNet101), RESNET, smallest_side=32),
    "resnet152": Architecture(partial(application, network=applications.ResNet152), RESNET, smallest_side=32),
    "resnext50_32x4d": Architecture(resnext50, "Xie et al. 2016", smallest_side=4),
    "densenet121": Architecture(partial(application, network=applications.DenseNet121), DENSENET, smallest_side=32),
    "densenet169": Architecture(partial(application, network=applications.DenseNet169), DENSENET, smallest_side=32),
    "mobilenet": Architecture(
        partial(application, network=applications.MobileNet, dropout=1e-3), "Howard et al. 2017", smallest_side=32
    ),
    "mobilenet_v2": Architecture(
        partial(application, network=applications.MobileNetV2), "Sandler et al. 2018", smallest_side=32
    ),
    "shufflenet": Architecture(shufflenet, "Zhang et al. 2017", smallest_side=4),
    "shufflenet_v2": Architecture(shufflenet_v2, "Ma et al. 2018", smallest_side=4),
    "efficientnet_v2_b0": Architecture(
        partial(application, network=applications.EfficientNetV2B0, include_preprocessing=False, dropout=0.2),
        "Tan and Le 2021",
        smallest_side=32,
    ),
    "convnext_tiny": Architecture(
        partial(application, network=applications.ConvNeXtTiny, include_preprocessing=False),
        "Liu et al. 2022",
        smallest_side=32,
    ),
    "lstm_rows": Architecture(lstm_rows, "Hochreiter and Schmidhuber 1997", DIGIT),
}
