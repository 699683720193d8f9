"""Lets petastorm 0.13.1 run on any pyarrow from 14 and NumPy from 1.26: call `install()` before `import petastorm`.

petastorm 0.13.1 expects

- of pyarrow: `pyarrow.filesystem.LocalFileSystem`, `pyarrow.LocalFileSystem`, `pyarrow.localfs`,
  `pyarrow.hdfs.HadoopFileSystem` and the dataset classes of pyarrow 14 (see `arrow_dataset`), gone since 15
  and 16;
- of NumPy: `string_` and `unicode_`, gone since 2.0, `in1d`, gone since 2.4, and `float`, gone since 1.24.

Upstream knows: uber/petastorm #803, #805 and #806. Tested with petastorm 0.13.1 on pyarrow 25.0.1 with
NumPy 2.4.6 and on pyarrow 14.0.2 with NumPy 1.26.4. pyarrow 14 has all these names, but its dataset classes
refuse an fsspec file system from petastorm, so without the bridge no object store could be read there.

Nobody but petastorm notices: `pyarrow`, `numpy` and their part of `sys.modules` stay as they are. A finder in
`sys.meta_path` gives the modules named `petastorm` and `petastorm.*` an import statement of their own, which
answers `numpy`, `pyarrow` and `pyarrow.parquet` with the real module plus the names it lost.

Limits: `hdfs://` is refused. Each new interpreter needs the bridge anew: the workers of petastorm's process
pool get it by themselves, but a Python worker of Spark has to call `install()` before it meets petastorm.
"""

import builtins
import importlib.metadata
import os
import runpy
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import fsspec
import numpy as np
import pyarrow
import pyarrow.parquet
from fsspec.implementations.local import LocalFileSystem

from cnnlib.errors import FeedError
from cnnlib.feed.petastorm import arrow_dataset

TESTED_PETASTORM = "0.13.1"
PROCESS_LAUNCHER = "petastorm.workers_pool.exec_in_new_process"


def install() -> None:
    """Make later imports of petastorm work on this pyarrow and NumPy. A second call does nothing.

    Warns if petastorm is of another version than the tested one. Raises FeedError if it is missing, or was
    imported before.
    """
    if any(isinstance(f, _BridgedFinder) for f in sys.meta_path):
        return
    try:
        version = importlib.metadata.version("petastorm")
    except importlib.metadata.PackageNotFoundError:
        raise FeedError(f"petastorm is not installed; install petastorm=={TESTED_PETASTORM}") from None
    early = next(filter(_is_petastorm, sys.modules), None)
    if early:
        raise FeedError(f"{early} was imported before the Arrow bridge; call arrow_bridge.install() first")
    warning = version_warning(version)
    if warning:
        warnings.warn(warning, stacklevel=2)
    # First in line, since other finders do not ask on (pytest's, which rewrites test modules, is one).
    sys.meta_path.insert(0, _BridgedFinder())


def version_warning(petastorm_version: str) -> str | None:
    """What to tell the user about their petastorm, or None if it is the tested one."""
    if petastorm_version == TESTED_PETASTORM:
        return None
    return (
        f"the Arrow bridge was tested with petastorm {TESTED_PETASTORM}, not with {petastorm_version}; "
        f"if reading fails, install petastorm=={TESTED_PETASTORM}"
    )


def stand_in(name: str) -> ModuleType:
    """What petastorm's modules get for the module `name`."""
    return _STAND_INS[name]


class _StandIn(ModuleType):
    """A module as petastorm knew it: the real one, plus the names it has lost since."""

    def __init__(self, real: ModuleType, **lost_names: Any) -> None:
        super().__init__(real.__name__)
        vars(self).update(lost_names, _real=real)

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["_real"], name)

    def __reduce__(self) -> tuple[Callable[[str], ModuleType], tuple[str]]:
        # Spark pickles inner functions of petastorm together with the modules they use.
        return stand_in, (self.__name__,)


class _HadoopFileSystem:
    """The base of petastorm's HDFS client, there for its module to load; pyarrow has none any more."""


def _refuse_hdfs(*args: Any, **kwargs: Any) -> NoReturn:
    raise FeedError("petastorm cannot read hdfs:// on this pyarrow; use a mounted folder or an object store")


def _in1d(values: Any, choices: Any) -> np.ndarray:
    return np.isin(np.ravel(values), choices)


_NUMPY_NAMES = {"string_": np.bytes_, "unicode_": np.str_, "in1d": _in1d, "float": float}
_NUMPY = _StandIn(np, **{name: value for name, value in _NUMPY_NAMES.items() if not hasattr(np, name)})
_PARQUET = _StandIn(
    pyarrow.parquet,
    ParquetDataset=arrow_dataset.ParquetDataset,
    ParquetDatasetPiece=arrow_dataset.ParquetDatasetPiece,
    PartitionSet=arrow_dataset.PartitionSet,
)
_FILESYSTEM = _StandIn(ModuleType("pyarrow.filesystem"), LocalFileSystem=LocalFileSystem)
_HDFS = _StandIn(ModuleType("pyarrow.hdfs"), HadoopFileSystem=_HadoopFileSystem, connect=_refuse_hdfs)
_PYARROW = _StandIn(
    pyarrow,
    parquet=_PARQUET,
    filesystem=_FILESYSTEM,
    hdfs=_HDFS,
    LocalFileSystem=LocalFileSystem,
    localfs=fsspec.filesystem("file"),
)
_GONE: dict[str, ModuleType] = {module.__name__: module for module in (_FILESYSTEM, _HDFS)}
_STAND_INS: dict[str, ModuleType] = _GONE | {module.__name__: module for module in (_NUMPY, _PYARROW, _PARQUET)}


def _bridged_import(
    name: str,
    globals: Any = None,
    locals: Any = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    """What an import statement in petastorm's modules calls."""
    if name in _GONE:
        # As ever, `import a.b` gives a, and `from a.b import c` gives a.b.
        return _GONE[name] if fromlist else _PYARROW
    module = builtins.__import__(name, globals, locals, fromlist or (), level)
    return _STAND_INS.get(module.__name__, module)


# An import statement calls the `__import__` of the `__builtins__` of the module it stands in.
_BRIDGED_BUILTINS = vars(builtins) | {"__import__": _bridged_import}


class _BridgedFinder(MetaPathFinder):
    """Finds petastorm's modules where the other finders do, and has them run with the bridged import."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not _is_petastorm(fullname):
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _BridgedLoader(spec.loader)
                return spec
        return None


class _BridgedLoader(Loader):
    """Another loader, whose modules run with the bridged import."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        # What else a loader may offer: source lines for tracebacks, data files, code for `python -m`.
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = _BRIDGED_BUILTINS
        self._loader.exec_module(module)
        if module.__name__ == PROCESS_LAUNCHER:
            vars(module)["exec_in_new_process"] = _call_in_bridged_process


def _call_in_bridged_process(func: Callable[..., Any], *args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
    """Start `func` in a new interpreter that has the bridge before it imports anything of petastorm."""
    import dill  # petastorm's own choice; only its process pool needs it

    with tempfile.NamedTemporaryFile(suffix="runnable", delete=False) as runnable:
        dill.dump((func, args, kwargs), runnable)
    this_project = str(Path(__file__).parents[2])
    search_path = os.pathsep.join(filter(None, [this_project, os.environ.get("PYTHONPATH")]))
    program = f"from {__name__} import run_pool_worker; run_pool_worker()"
    return subprocess.Popen(
        [sys.executable, "-c", program, runnable.name], env=os.environ | {"PYTHONPATH": search_path}
    )


def run_pool_worker() -> None:
    """The main program of a worker of petastorm's process pool; its argument is a pickled call's file."""
    install()
    runpy.run_module(f"{PROCESS_LAUNCHER}_entrypoint", run_name="__main__", alter_sys=True)


def _is_petastorm(module_name: str) -> bool:
    return module_name.partition(".")[0] == "petastorm"
