"""What the setting model.weights may name: the weights that a training starts from."""

from pathlib import Path

from cnnlib.errors import ConfigError
from cnnlib.sealed.frozen.predict import MODEL_FILE

# What model.weights may be beside a folder: ImageNet's, Keras' weights of one of its networks without its head, a whole
# model as training saves it, or one that is registered.
IMAGENET_WEIGHTS, WEIGHTS_SUFFIX, MODEL_SUFFIX, REGISTERED = "imagenet", ".h5", ".keras", "models:/"


def weights_file(weights: str) -> Path:
    """The file behind model.weights, where that is a path. Raises ConfigError where there is none."""
    path = Path(weights)
    file = path if path.suffix in (WEIGHTS_SUFFIX, MODEL_SUFFIX) else path / MODEL_FILE
    if not file.is_file():
        raise ConfigError(
            f"model.weights={weights} is not there; expected {IMAGENET_WEIGHTS}, a {WEIGHTS_SUFFIX} or {MODEL_SUFFIX} "
            f"file, a folder with {MODEL_FILE}, or {REGISTERED}NAME/VERSION"
        )
    return file


def is_path(weights: str) -> bool:
    """Whether model.weights names a file or folder, not ImageNet or a registered model."""
    return weights != IMAGENET_WEIGHTS and not weights.startswith(REGISTERED)
