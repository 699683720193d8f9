"""The weights that a training starts from, as the setting model.weights names them."""

from pathlib import Path

from cnnlib.errors import ConfigError
from cnnlib.sealed.frozen.predict import MODEL_FILE

# model.weights names a folder with a whole model, or one of these: the ImageNet weights, a file with the weights of a
# Keras application without its head, a file with a whole model as training saves it, or a registered model.
IMAGENET_WEIGHTS, WEIGHTS_SUFFIX, MODEL_SUFFIX, REGISTERED = "imagenet", ".h5", ".keras", "models:/"


def weights_file(weights: str) -> Path:
    """Return the file that model.weights names, which must be a path. Raises ConfigError if there is no such file."""
    path = Path(weights)
    file = path if path.suffix in (WEIGHTS_SUFFIX, MODEL_SUFFIX) else path / MODEL_FILE
    if not file.is_file():
        raise ConfigError(
            f"model.weights={weights} is not there; expected {IMAGENET_WEIGHTS}, a {WEIGHTS_SUFFIX} or {MODEL_SUFFIX} "
            f"file, a folder with {MODEL_FILE}, or {REGISTERED}NAME/VERSION"
        )
    return file


def is_path(weights: str) -> bool:
    """Return whether model.weights names a file or folder, not ImageNet or a registered model."""
    return weights != IMAGENET_WEIGHTS and not weights.startswith(REGISTERED)
