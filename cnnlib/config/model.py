"""The settings of the model, and the names of all architectures."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from pydantic import Field, field_validator

from cnnlib.config.settings import Settings
from cnnlib.errors import did_you_mean

# Order of the families in help and in `sparkcnn models`. A family that is not listed here comes last.
_FAMILY_ORDER = (
    *("lenet", "alexnet", "vgg", "nin", "googlenet", "resnet", "densenet", "mobilenet", "shufflenet", "efficientnet"),
    *("convnext", "lstm_rows"),
)


@dataclass(frozen=True)
class DeclaredArchitecture:
    """An architecture's name, the module of cnnlib.models that declares it, and whether it has ImageNet weights."""

    name: str
    module: str
    is_pretrained: bool


def _declared_architectures() -> Iterator[DeclaredArchitecture]:
    """Read the declarations from the source text of cnnlib.models.

    Importing these modules would import TensorFlow, which takes seconds, and help needs only the names.
    """
    # importlib.resources reads from a folder and from a zipped wheel.
    paths = [path for path in files("cnnlib").joinpath("models").iterdir() if path.name.endswith(".py")]
    sources = {path.name.removesuffix(".py"): path for path in paths}
    known = {family: number for number, family in enumerate(_FAMILY_ORDER)}
    for module in sorted(sources, key=lambda module: (known.get(module, len(known)), module)):
        for statement in ast.parse(sources[module].read_text("utf-8")).body:
            match statement:
                case ast.Assign(targets=[ast.Name("ARCHITECTURES")], value=ast.Tuple(declarations)):
                    yield from (_declared(declaration, module) for declaration in declarations)


def _declared(declaration: ast.expr, module: str) -> DeclaredArchitecture:
    match declaration:
        case ast.Call(ast.Name(function), [ast.Constant(str(name)), *_]):
            return DeclaredArchitecture(name, module, is_pretrained=function == "keras_application")
    raise TypeError(f"cnnlib.models.{module} declares {ast.unparse(declaration)}; its name must be the first argument")


_DECLARED = tuple(_declared_architectures())
ARCHITECTURE_NAMES = tuple(one.name for one in _DECLARED)
PRETRAINED_NAMES = tuple(one.name for one in _DECLARED if one.is_pretrained)
# Modules of cnnlib.models with an `ARCHITECTURES` tuple, in the order of the names.
ARCHITECTURE_MODULES = tuple(dict.fromkeys(one.module for one in _DECLARED))

_OWN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class ModelSettings(Settings):
    """The architecture of the model, and its first weights."""

    name: str = Field(
        "lenet",
        description=f"one of {', '.join(ARCHITECTURE_NAMES)}; or a function of your own: package.module:function",
    )
    weights: str | None = Field(
        None,
        description="first weights of all layers except the new head: imagenet, a .h5 file of ImageNet weights, a "
        ".keras file, a checkpoint's folder, or models:/NAME/VERSION; null starts from random weights. See transfer",
    )
    options: dict[str, Any] = Field({}, description="the architecture's own options, e.g. {activation: tanh}")

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in ARCHITECTURE_NAMES and not _OWN.fullmatch(name):
            hint = did_you_mean(name, ARCHITECTURE_NAMES, f"take one of {', '.join(ARCHITECTURE_NAMES)}")
            raise ValueError(f"expected an architecture or a function of your own (package.module:function); {hint}")
        return name
