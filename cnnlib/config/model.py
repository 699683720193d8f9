"""Which network is trained."""

import difflib
import re
from typing import Any

from pydantic import Field, field_validator

from cnnlib.config.settings import Settings

# As in `cnnlib.models.catalogue`, which takes TensorFlow's seconds to import.
ARCHITECTURE_NAMES = (
    *("mlp", "lenet", "alexnet", "vgg11", "vgg16", "vgg19", "nin", "googlenet", "inception_v3"),
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "densenet121", "densenet169"),
    *("mobilenet", "mobilenet_v2", "shufflenet", "shufflenet_v2", "efficientnet_v2_b0", "convnext_tiny", "lstm_rows"),
)

_OWN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class ModelSettings(Settings):
    """Which network."""

    name: str = Field(
        "lenet",
        description=f"one of {', '.join(ARCHITECTURE_NAMES)}; or a function of your own: package.module:function",
    )
    weights: str | None = Field(
        None,
        description="where its weights begin, but for a new head: imagenet, a .h5 file of such weights, a .keras file, "
        "a checkpoint's folder, or models:/NAME/VERSION; null for new ones. See transfer",
    )
    options: dict[str, Any] = Field({}, description="the architecture's own options, e.g. {activation: tanh}")

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in ARCHITECTURE_NAMES and not _OWN.fullmatch(name):
            nearest = difflib.get_close_matches(name, ARCHITECTURE_NAMES, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"take one of {', '.join(ARCHITECTURE_NAMES)}"
            raise ValueError(f"no architecture, nor a function of your own (package.module:function); {hint}")
        return name
