"""The whole pipeline in one call, on a small set."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from cnnlib.config import (
    DataSettings,
    DemoSettings,
    FitSettings,
    ImageSetOutputSettings,
    IngestSettings,
    PredictionsOutputSettings,
    RegisterSettings,
    ScoreInputSettings,
    ScoreSettings,
    SourceSettings,
    TrackingSettings,
    TrainSettings,
)
from cnnlib.errors import ConfigError, LimitError
from cnnlib.quiet import import_tensorflow_quietly
from tests.conftest import TEST_DIGITS, TRAIN_DIGITS


@pytest.fixture
def settings(digits_idx: Path, tmp_path: Path, new_store: Callable[[Path], str]) -> DemoSettings:
    tracking = TrackingSettings(uri=new_store(tmp_path))
    image_set = str(tmp_path / "set")
    return DemoSettings(
        ingest=IngestSettings(
            source=SourceSettings(format="idx", path=str(digits_idx)),
            output=ImageSetOutputSettings(path=image_set, overwrite=True),
        ),
        train=TrainSettings(
            data=DataSettings(path=image_set),
            train=FitSettings(epochs=2, worker_batch_size=32),
            tracking=tracking,
            register=RegisterSettings(name="digits"),
        ),
        score=ScoreSettings(
            model="models:/digits@champion",
            input=ScoreInputSettings(path=image_set),
            output=PredictionsOutputSettings(path=str(tmp_path / "predictions"), overwrite=True),
            tracking=tracking,
        ),
        min_test_accuracy=0.5,
    )


@pytest.mark.main_path
def test_demo_shows_what_it_did(spark: SparkSession, settings: DemoSettings) -> None:
    import_tensorflow_quietly()
    from pipelines.demo import demo

    result = demo(spark, settings)
    assert (result.trained.version, result.predictions.model_version) == ("1", "1")
    check_demo(result)


def test_demo_can_run_twice(spark: SparkSession, settings: DemoSettings) -> None:
    import_tensorflow_quietly()
    from pipelines.demo import demo

    first, second = demo(spark, settings), demo(spark, settings)
    assert first.image_set.fingerprint == second.image_set.fingerprint
    assert (first.trained.version, second.trained.version) == ("1", "2")
    assert (first.predictions.model_version, second.predictions.model_version) == ("1", "2")
    # The same seed gives the same model, except for the order in which threads add numbers.
    assert second.test_accuracy == pytest.approx(first.test_accuracy, abs=0.05)
    check_demo(second)


def check_demo(result: "DemoResult") -> None:  # noqa: F821  (its import would load TensorFlow, which takes seconds)
    """Check the result of a demo: its stages, its table, and its lowest allowed accuracy."""
    from jobs.tables.pipeline import demo_table

    assert [(stage.name, stage.images) for stage in result.stages] == [
        ("ingest", TRAIN_DIGITS + TEST_DIGITS),
        ("train", 2 * result.image_set.split("train").rows),
        ("score", TEST_DIGITS),
    ]
    cells = [str(cell) for column in demo_table(result).columns for cell in column.cells]
    assert f"{result.test_accuracy:.4f}" in cells
    assert f"digits version {result.trained.version}, alias champion" in cells
    result.check(result.test_accuracy)
    with pytest.raises(LimitError, match=r"is below min_test_accuracy=1\.0") as error:
        result.check(1.0)
    assert error.value.exit_status == 3


def test_stages_with_different_image_sets_are_refused(spark: SparkSession, settings: DemoSettings) -> None:
    import_tensorflow_quietly()
    from pipelines.demo import demo

    elsewhere = settings.score.model_copy(update={"input": ScoreInputSettings(path="elsewhere")})
    with pytest.raises(ConfigError, match="must name the same image set, received"):
        demo(spark, settings.model_copy(update={"score": elsewhere}))
