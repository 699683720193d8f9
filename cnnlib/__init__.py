"""The library: images, image sets, the feed, models and their training, without Spark and MLflow."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from cnnlib.keras_setup import set_backend
from cnnlib.quiet import import_tensorflow_quietly

# Here, because any module may be the first one that imports Keras.
set_backend()


def import_on_use(package: str, *, needs_tensorflow: bool = False, **modules: str) -> Callable[[str], Any]:
    """Make the `__getattr__` of a package that hands on a few public names (PEP 562).

    Each name is imported from its module when it is first used. So importing another module of the package does not
    import TensorFlow or MLflow too. `needs_tensorflow` says that these modules import TensorFlow: then it comes first,
    without the lines that it writes at its start, for example into a notebook.

    >>> import_on_use("cnnlib.image_set", open_image_set="contract")("open_image_set").__name__
    'open_image_set'
    """

    def import_name(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package} has no attribute {name}")
        if needs_tensorflow:
            import_tensorflow_quietly()
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return import_name
