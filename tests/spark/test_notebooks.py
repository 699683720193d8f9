"""Run the notebooks from top to bottom on a few hundred images."""

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from cnnlib.config.model import ARCHITECTURE_NAMES
from cnnlib.quiet import import_tensorflow_quietly

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


class Widgets:
    """Stands in for `dbutils.widgets` of Databricks, with the values that a user typed."""

    def __init__(self, typed: dict[str, str]) -> None:
        self._typed = typed
        self._defaults: dict[str, str] = {}

    def text(self, name: str, default: str) -> None:
        self._defaults[name] = default

    def get(self, name: str) -> str:
        return self._typed.get(name, self._defaults[name])


class Dbutils:
    """Stands in for `dbutils`, which Databricks puts into the globals of a notebook."""

    def __init__(self, **typed: str) -> None:
        self.widgets = Widgets(typed)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_store: Callable[[Path], str]) -> Callable[..., dict]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", new_store(tmp_path))
    import_tensorflow_quietly()
    return lambda name, **typed: runpy.run_path(str(NOTEBOOKS / name), {"dbutils": Dbutils(**typed)})


@pytest.mark.main_path
def test_notebooks_run_top_to_bottom(
    spark: SparkSession, digits_idx: Path, run: Callable[..., dict], capsys: pytest.CaptureFixture
) -> None:
    ingested = run("01_ingest.py", source_format="idx", source_path=str(digits_idx), val_fraction="0.2")
    assert ingested["image_set"].counts.kept == 800
    trained = run("02_train.py", epochs="2")
    assert trained["trained"].version == "1"
    scored = run("03_score.py")
    assert scored["predictions"].counts == {"rows": 200, "scored": 200, "failed": 0}
    assert scored["test_accuracy"] > 0.3
    explained = run("04_convolutions.py", images="200", random_cases="30")
    assert (explained["predicted"] == explained["labels"]).mean() == pytest.approx(scored["test_accuracy"], abs=0.006)
    names = {"cross_correlation", "cross_correlation_padded", "filters", "maps_1", "maps_2"}
    names |= {"grad_cam_right", "grad_cam_wrong"}
    assert {path.stem for path in explained["figures"].glob("*.png")} == names
    evaluated = run("06_evaluate.py")
    assert evaluated["evaluated"].evaluation.accuracy == scored["test_accuracy"]
    printed = capsys.readouterr().out
    assert "Counts(found=800, kept=800, duplicate=0, rejected=0)" in printed
    assert f"best is epoch {trained['trained'].best_epoch}: mnist-lenet version 1" in printed


def test_architectures_run_without_spark_or_images(run: Callable[..., dict], tmp_path: Path) -> None:
    compared = run("05_architectures.py", depth="8", figures_path="drawn")
    assert compared["table"]["year"].is_monotonic_increasing
    assert len(compared["table"]) == len(ARCHITECTURE_NAMES)
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {"costs.png", "gradients.png"}


@pytest.mark.main_path
@pytest.mark.parametrize("notebook", sorted(path.name for path in NOTEBOOKS.glob("*.py")))
def test_notebook_has_databricks_format(notebook: str) -> None:
    text = (NOTEBOOKS / notebook).read_text()
    assert text.startswith("# Databricks notebook source\n# MAGIC %md\n")
    cells = text.split("\n# COMMAND ----------\n")
    assert len(cells) > 4
    # A notebook has no logic of its own: it defines nothing, and has no branches.
    for word in ("def ", "class ", "if ", "while ", "try:"):
        assert not any(line.startswith(word) for line in text.splitlines()), word
