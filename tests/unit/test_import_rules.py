"""Who may import whom: from the source, and for modules that must stay light, from a new interpreter."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from jobs.catalogue import JOBS

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = ("cnnlib", "pipelines", "jobs", "notebooks", "benchmarks")
OURS = ("setup.py", *PACKAGES, "tests")

# Each may import from those below it.
FLOORS = {"cnnlib": 0, "pipelines": 1, "jobs": 2, "notebooks": 2, "benchmarks": 2}

# A Spark task that only decodes, and a driver that only checks settings, must not pay seconds for these.
HEAVY = ("tensorflow", "keras", "mlflow")
# The marker of a folder that imports none of them: a tuple of the modules in it that may. The other marker is for a
# folder that may import them: a tuple of the modules in it that may not.
MARKER, OTHER_MARKER = "LIGHT_BUT_FOR", "LIGHT"


def python_files(*folders: str) -> list[str]:
    """Return the paths of our own files, relative to the project."""
    found = [path for folder in folders for path in (PROJECT / folder).rglob("*.py")]
    return sorted(path.relative_to(PROJECT).as_posix() for path in found if "__pycache__" not in path.parts)


def light_modules() -> list[str]:
    """Return the dotted names of all modules that a marker in their folder calls light."""
    found = []
    for init in python_files("cnnlib", "pipelines"):
        if not init.endswith("/__init__.py"):
            continue
        package = init.removesuffix("/__init__.py").replace("/", ".")
        for node in ast.parse((PROJECT / init).read_text()).body:
            marker = ast.unparse(node.targets[0]) if isinstance(node, ast.Assign) else ""
            if marker not in (MARKER, OTHER_MARKER):
                continue
            named = set(ast.literal_eval(node.value))
            modules = {path.stem for path in (PROJECT / init).parent.glob("*.py")} - {"__init__"}
            assert named <= modules, package
            light = modules - named if marker == MARKER else named
            found += [package, *(f"{package}.{name}" for name in sorted(light))]
    return found


@cache
def imports_of(path: str) -> frozenset[str]:
    """Return the full names of all modules that a file imports, at its top or anywhere else."""
    return frozenset(_imports_of(path))


def _imports_of(path: str) -> Iterator[str]:
    package = Path(path).parent.parts
    for node in ast.walk(ast.parse((PROJECT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            module = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            # What is imported from a package may be a module of it.
            yield from (f"{module}.{alias.name}" for alias in node.names)


def importers_of(library: str, *folders: str) -> set[str]:
    return {
        path
        for path in python_files(*folders)
        if any(name == library or name.startswith(f"{library}.") for name in imports_of(path))
    }


def test_the_files_were_found():
    assert {
        "cnnlib/sealed/frozen/images.py",
        "cnnlib/feed/dataset.py",
        "pipelines/ingest/flow.py",
        "jobs/train.py",
    } <= set(python_files(*PACKAGES))
    assert "cnnlib.sealed.frozen.errors.ImageError" in imports_of("cnnlib/sealed/frozen/images.py")


@pytest.mark.parametrize(
    ("package", "above"),
    [(low, high) for low in FLOORS for high in FLOORS if low != high and FLOORS[low] <= FLOORS[high]],
)
def test_package_never_imports_from_above_or_beside(package, above):
    assert importers_of(above, package) == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_nobody_imports_the_tests(package):
    assert importers_of("tests", package) == set()


def test_cnnlib_knows_neither_spark_nor_mlflow():
    assert importers_of("pyspark", "cnnlib") | importers_of("mlflow", "cnnlib") == set()


def test_mlflow_is_spoken_to_by_tracking_alone():
    users = {path for path in importers_of("mlflow", *PACKAGES) if not path.startswith("pipelines/tracking/")}
    # MLflow brings the study; a benchmark measures MLflow's own UDF beside ours.
    assert users == {"pipelines/tune/study.py", "benchmarks/scoring_ways.py"}


def test_petastorm_stays_under_the_feed():
    users = importers_of("petastorm", *PACKAGES)
    assert users
    # A benchmark may measure petastorm as it comes, beside the feed.
    assert {path for path in users if not path.startswith(("cnnlib/feed/petastorm/", "benchmarks/"))} == set()


FLOWS = {
    # A flow, and the other flows that it may use. Evaluate uses the tasks of score; tune and compare train; doctor asks
    # the training for its preconditions.
    "ingest": set(),
    "train": set(),
    "score": set(),
    "evaluate": {"score"},
    "tune": {"train"},
    "doctor": {"train"},
}


@pytest.mark.parametrize("flow", FLOWS)
def test_flows_import_only_the_flows_that_they_may_use(flow):
    imported = {name for path in python_files(f"pipelines/{flow}") for name in imports_of(path)}
    others = {name.split(".")[1] for name in imported if name.startswith("pipelines.")} & FLOWS.keys() - {flow}
    assert others <= FLOWS[flow]


# A folder that all flows use, and the other such folders that it may use.
BELOW_THE_FLOWS = {"spark": set(), "tracking": {"spark"}, "sources": {"spark"}}


def test_every_folder_is_a_flow_or_below_the_flows():
    folders = {path.parent.name for path in (PROJECT / "pipelines").glob("*/__init__.py")}
    assert folders == FLOWS.keys() | BELOW_THE_FLOWS.keys()


@pytest.mark.parametrize("folder", BELOW_THE_FLOWS)
def test_what_all_flows_use_imports_none_of_them(folder):
    imported = {name for path in python_files(f"pipelines/{folder}") for name in imports_of(path)}
    below = BELOW_THE_FLOWS[folder] | {folder}
    assert {name.split(".")[1] for name in imported if name.startswith("pipelines.")} <= below


@pytest.mark.parametrize("path", python_files("cnnlib/sealed/frozen"))
def test_frozen_module_imports_its_fellows_alone_and_relatively(path):
    # They go into every registered model, and run where the project is not installed.
    assert not {name for name in imports_of(path) if name.split(".")[0] in FLOORS and ".frozen" not in name}
    imports = [node for node in ast.walk(ast.parse((PROJECT / path).read_text())) if isinstance(node, ast.ImportFrom)]
    assert not any((node.module or "").startswith("cnnlib") for node in imports)


def test_sealed_model_imports_nothing_of_the_project():
    assert {name for name in imports_of("pipelines/tracking/sealed_model.py") if name.split(".")[0] in FLOORS} == set()


# --- for real


def modules_loaded_by(modules: list[str], watched: tuple[str, ...]) -> dict[str, list[str]]:
    """Import the modules one after the other in a new interpreter. Return the watched modules that each brought."""
    script = f"""
import importlib, sys
for name in {modules!r}:
    before = {{w for w in {watched!r} if w in sys.modules}}
    importlib.import_module(name)
    print(name, *sorted({{w for w in {watched!r} if w in sys.modules}} - before))
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=PROJECT, check=True, timeout=300
    )
    return {line.split()[0]: line.split()[1:] for line in ended.stdout.splitlines()}


def test_light_folders_load_neither_tensorflow_nor_keras_nor_mlflow():
    modules = light_modules()
    # What a task imports to decode, to score and to write, and what doctor imports to check.
    assert {
        "cnnlib.config.train",
        "cnnlib.image_set.writer",
        "cnnlib.sealed.frozen.images",
        "cnnlib.training.preconditions",
        "cnnlib.training.scaling",
        "pipelines.doctor.data",
        "pipelines.ingest.flow",
        "pipelines.score.worker_model",
        "pipelines.sources.manifest",
    } <= set(modules)
    assert modules_loaded_by(modules, HEAVY) == {module: [] for module in modules}


def test_command_and_settings_load_nothing_slow():
    # `sparkcnn --help` and a mistyped setting answer at once.
    modules = ["jobs.sparkcnn", "jobs.settings", "jobs.command", *(f"jobs.{name}" for name in JOBS)]
    assert modules_loaded_by(modules, (*HEAVY, "pyspark", "pandas")) == {module: [] for module in modules}


def test_doctor_loads_nothing_that_may_be_broken():
    watched = (*HEAVY, "pyspark", "pandas", "numpy", "pyarrow", "petastorm", "fsspec", "PIL")
    # The last two are what the job imports when it runs.
    modules = ["jobs.doctor", "jobs.tables.doctor", "pipelines.doctor.flow"]
    assert modules_loaded_by(modules, watched) == {module: [] for module in modules}


# --- names and sizes


def test_no_module_is_named_after_nothing():
    vague = {"utils", "util", "helpers", "helper", "common", "misc"}
    named = {path for path in python_files(*OURS) if vague & {Path(path).stem, *Path(path).parent.parts}}
    assert named == set()
