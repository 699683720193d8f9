"""Run petastorm 0.13.1 on pyarrow 14 and later and NumPy 1.26 and later: call `install()` before `import petastorm`.

petastorm 0.13.1 uses names that these libraries have removed:

- pyarrow: `pyarrow.filesystem.LocalFileSystem`, `pyarrow.LocalFileSystem`, `pyarrow.localfs`,
  `pyarrow.hdfs.HadoopFileSystem` and the dataset classes of pyarrow 14 (see `arrow_dataset`), removed in 15 and 16;
- NumPy: `float`, removed in 1.24; `string_` and `unicode_`, removed in 2.0; `in1d`, removed in 2.4.

Upstream knows of this: uber/petastorm #803, #805 and #806. The bridge was tested with petastorm 0.13.1 on pyarrow
25.0.1 with NumPy 2.4.6, and on pyarrow 14.0.2 with NumPy 1.26.4. pyarrow 14 still has all these names, but its dataset
classes refuse an fsspec file system from petastorm, so without the bridge petastorm cannot read object stores there.

Only petastorm sees the bridge: `pyarrow`, `numpy` and their entries in `sys.modules` stay unchanged. A finder in
`sys.meta_path` gives the modules named `petastorm` and `petastorm.*` their own import statement. For `numpy`,
`pyarrow` and `pyarrow.parquet` it returns the real module plus the names that this module has lost.

Limits: `hdfs://` is refused. Each new interpreter needs the bridge again. The workers of petastorm's process pool get
it automatically, but a Spark task must call `install()` before it imports petastorm.

Most of these names are needed to import petastorm at all. After that the feed uses only petastorm's thread pool and
`ParquetDatasetPiece`. The rest (folders, partitions, filters, the process pool, pickling) is here for petastorm's
`make_batch_reader`, which the benchmarks measure, and for petastorm's own tests: `make petastorm` runs them to show
that the bridge breaks none.
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

    Warns if the version of petastorm is not the tested one. Raises FeedError if petastorm is not installed, or was
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
    # First in the list: some finders never ask those behind them, such as pytest's, which rewrites test modules.
    sys.meta_path.insert(0, _BridgedFinder())


def version_warning(petastorm_version: str) -> str | None:
    """Return a warning if this version of petastorm was not tested, else None."""
    if petastorm_version == TESTED_PETASTORM:
        return None
    return (
        f"the Arrow bridge was tested with petastorm {TESTED_PETASTORM}, not with {petastorm_version}; "
        f"if reading fails, install petastorm=={TESTED_PETASTORM}"
    )


def stand_in(name: str) -> ModuleType:
    """Return the module that petastorm's modules get when they import `name`."""
    return _STAND_INS[name]


class _StandIn(ModuleType):
    """A real module, plus the names that it has lost since petastorm was written."""

    def __init__(self, real: ModuleType, **lost_names: Any) -> None:
        super().__init__(real.__name__)
        vars(self).update(lost_names, _real=real)

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["_real"], name)

    def __reduce__(self) -> tuple[Callable[[str], ModuleType], tuple[str]]:
        # Spark pickles inner functions of petastorm together with the modules that they use.
        return stand_in, (self.__name__,)


class _HadoopFileSystem:
    """The base class of petastorm's HDFS client. Its module needs the name to load; pyarrow has removed it."""


def _refuse_hdfs(*args: Any, **kwargs: Any) -> NoReturn:
    raise FeedError("petastorm cannot read hdfs:// on this pyarrow; use a mounted folder or an object store instead")


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
_REMOVED: dict[str, ModuleType] = {module.__name__: module for module in (_FILESYSTEM, _HDFS)}
_STAND_INS: dict[str, ModuleType] = _REMOVED | {module.__name__: module for module in (_NUMPY, _PYARROW, _PARQUET)}


def _bridged_import(
    name: str,
    globals: Any = None,
    locals: Any = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    """Import a module for petastorm: import statements in petastorm's modules call this function."""
    if name in _REMOVED:
        # By Python's rules, `import a.b` returns a, and `from a.b import c` returns a.b.
        return _REMOVED[name] if fromlist else _PYARROW
    module = builtins.__import__(name, globals, locals, fromlist or (), level)
    return _STAND_INS.get(module.__name__, module)


# An import statement calls `__import__` from the `__builtins__` of its own module.
_BRIDGED_BUILTINS = vars(builtins) | {"__import__": _bridged_import}


class _BridgedFinder(MetaPathFinder):
    """Find petastorm's modules with the other finders, and make them run with the bridged import."""

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
    """A wrapper of another loader; the modules that it loads run with the bridged import."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        # A loader may offer more: source lines for tracebacks, data files, code for `python -m`.
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = _BRIDGED_BUILTINS
        self._loader.exec_module(module)
        if module.__name__ == PROCESS_LAUNCHER:
            vars(module)["exec_in_new_process"] = _call_in_bridged_process


def _call_in_bridged_process(func: Callable[..., Any], *args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
    """Start `func` in a new interpreter that installs the bridge before it imports petastorm."""
    import dill  # petastorm pickles with it; only its process pool needs it

    with tempfile.NamedTemporaryFile(suffix="runnable", delete=False) as runnable:
        dill.dump((func, args, kwargs), runnable)
    this_project = str(Path(__file__).parents[3])
    search_path = os.pathsep.join(filter(None, [this_project, os.environ.get("PYTHONPATH")]))
    program = f"from {__name__} import run_pool_worker; run_pool_worker()"
    return subprocess.Popen(
        [sys.executable, "-c", program, runnable.name], env=os.environ | {"PYTHONPATH": search_path}
    )


def run_pool_worker() -> None:
    """Run a worker of petastorm's process pool. The command line names the file of a pickled call."""
    install()
    runpy.run_module(f"{PROCESS_LAUNCHER}_entrypoint", run_name="__main__", alter_sys=True)


def _is_petastorm(module_name: str) -> bool:
    return module_name.partition(".")[0] == "petastorm"
