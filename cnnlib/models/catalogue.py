"""Every architecture by name, gathered from the modules that declare them."""

from importlib import import_module

from cnnlib.config.model import ARCHITECTURE_MODULES
from cnnlib.models.architecture import Architecture

ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for module in ARCHITECTURE_MODULES
    for architecture in import_module(f"cnnlib.models.{module}").ARCHITECTURES
}
