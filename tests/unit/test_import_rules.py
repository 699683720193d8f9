"""Who may import whom: read off the source, and for what must stay light, off a fresh interpreter."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = ("cnnlib", "pipelines", "jobs", "notebooks", "benchmarks")
OURS = ("setup.py", *PACKAGES, "tests")

# Each may import from those below it.
FLOORS = {"cnnlib": 0, "pipelines": 1, "jobs": 2, "notebooks": 2, "benchmarks": 2}

# Its own UDF is a peer.
MLFLOW_MEASURED = {"benchmarks/scoring_ways.py"}
MLFLOW_USERS = {
    "pipelines/tuning/study.py",
    *(
        f"pipelines/mlflow_store/{name}.py"
        for name in ("aliases", "registry", "runs", "sealed_model", "store", "tracking")
    ),
}

# A Spark task that only decodes, and a driver that only checks settings, must not pay for these.
HEAVY = ("tensorflow", "keras", "mlflow")
LIGHT_MODULES = (
    "cnnlib.errors",
    "cnnlib.config",
    "cnnlib.images",
    "cnnlib.imageset",
    "cnnlib.ingesting.imageset_writer",
    "cnnlib.ingesting.ledger",
    "cnnlib.mnist",
    "cnnlib.parts",
    "cnnlib.predict",
    "cnnlib.predictions",
    "cnnlib.scoring.predictions_writer",
    "cnnlib.reports.image_set",
    "cnnlib.reports.image_set_contents",
    "cnnlib.reports.page",
    "cnnlib.sealed",
    "cnnlib.ingesting.settling",
    "cnnlib.sources.cifar",
    "cnnlib.sources.idx",
    "cnnlib.sources.image_folder",
    "cnnlib.sources.manifest",
    "cnnlib.sources.webdataset",
    "cnnlib.splits",
    "cnnlib.storage",
    "cnnlib.ingesting.tally",
    "cnnlib.feed.blocks",
    "cnnlib.feed.sharding",
    "cnnlib.feed.shuffling",
    "cnnlib.judging.assessment",
    "cnnlib.judging.corruptions",
    "cnnlib.judging.evaluation",
    "cnnlib.judging.metrics",
    "cnnlib.training.preconditions",
    "cnnlib.training.scaling",
    "pipelines.checks.cluster",
    "pipelines.checks.data",
    "pipelines.ingest",
    "pipelines.scoring.worker_model",
    "pipelines.session",
    "pipelines.sources",
    "pipelines.tasks",
)
LONGEST_FILE = 400


def python_files(*folders: str) -> list[str]:
    """Paths relative to the project, of our own files."""
    found = [path for folder in folders for path in (PROJECT / folder).rglob("*.py")]
    return sorted(path.relative_to(PROJECT).as_posix() for path in found if "__pycache__" not in path.parts)


@cache
def imports_of(path: str) -> frozenset[str]:
    """Every module that a file imports, at its top or anywhere else; relative ones under their full name."""
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
    assert {"cnnlib/images.py", "cnnlib/feed/dataset.py", "pipelines/ingest.py", "jobs/train.py"} <= set(
        python_files(*PACKAGES)
    )
    assert "cnnlib.errors.ImageError" in imports_of("cnnlib/images.py")


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


def test_mlflow_is_spoken_to_in_few_places():
    assert importers_of("mlflow", *PACKAGES) == MLFLOW_USERS | MLFLOW_MEASURED


def test_petastorm_stays_under_the_feed():
    users = importers_of("petastorm", *PACKAGES)
    assert users
    # A benchmark may measure petastorm as it comes, beside the feed.
    assert {path for path in users if not path.startswith(("cnnlib/feed/", "benchmarks/"))} == set()


@pytest.mark.parametrize("flow", ["ingest", "train", "score"])
def test_flows_never_import_each_other(flow):
    others = {"ingest", "train", "score"} - {flow}
    assert {
        name for name in imports_of(f"pipelines/{flow}.py") if name.split(".")[1:2] in [[o] for o in others]
    } == set()


@pytest.mark.parametrize("name", ["errors", "grouped_convolution", "images", "predict"])
def test_travelling_module_imports_its_fellows_alone_and_relatively(name):
    path = f"cnnlib/{name}.py"
    # They go into every registered model, and run where the project is not installed.
    ours = {name.rpartition(".")[0] for name in imports_of(path) if name.split(".")[0] in FLOORS}
    assert ours <= {"cnnlib.errors", "cnnlib.grouped_convolution", "cnnlib.images"}
    imports = [node for node in ast.walk(ast.parse((PROJECT / path).read_text())) if isinstance(node, ast.ImportFrom)]
    assert not any((node.module or "").startswith("cnnlib") for node in imports)


def test_sealed_model_imports_nothing_of_the_project():
    assert {
        name for name in imports_of("pipelines/mlflow_store/sealed_model.py") if name.split(".")[0] in FLOORS
    } == set()


# --- for real


def modules_loaded_by(modules: list[str], watched: tuple[str, ...]) -> dict[str, list[str]]:
    """Import one module after the other in a fresh interpreter; which of the watched came in with each."""
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


def test_light_modules_load_neither_tensorflow_nor_keras_nor_mlflow():
    loaded = modules_loaded_by(list(LIGHT_MODULES), HEAVY)
    assert loaded == {module: [] for module in LIGHT_MODULES}


def test_command_and_settings_load_nothing_slow():
    # `sparkcnn --help` and a mistyped setting answer at once.
    modules = ["jobs.sparkcnn", "jobs.settings", "jobs.command", "jobs.plan"]
    assert modules_loaded_by(modules, (*HEAVY, "pyspark", "pandas")) == {module: [] for module in modules}


def test_doctor_loads_nothing_that_may_be_broken():
    watched = (*HEAVY, "pyspark", "pandas", "numpy", "pyarrow", "petastorm", "fsspec", "PIL")
    assert modules_loaded_by(["jobs.doctor"], watched) == {"jobs.doctor": []}


# --- names and sizes


def test_no_module_is_named_after_nothing():
    vague = {"utils", "util", "helpers", "helper", "common", "misc"}
    named = {path for path in python_files(*OURS) if vague & {Path(path).stem, *Path(path).parent.parts}}
    assert named == set()


def test_a_file_fits_a_sitting():
    lines = {path: len((PROJECT / path).read_text().splitlines()) for path in python_files(*OURS)}
    assert {path: count for path, count in lines.items() if count > LONGEST_FILE} == {}
