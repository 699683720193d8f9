"""The training toolbox in the driver and on two workers: augmentation, transfer, and divergence."""

from pathlib import Path

import mlflow
import numpy as np
import pytest
from pyspark.sql import SparkSession

from cnnlib.config import TrainSettings
from cnnlib.errors import ConfigError, DivergenceError, ModelError
from cnnlib.training.checkpoints import read_checkpoint
from pipelines.tracking.store import connect
from pipelines.tracking.tags import tag_key
from pipelines.tracking.tracker import WARNINGS, Tracker
from pipelines.train.find_rate import find_rate
from pipelines.train.flow import TrainedModel, train
from tests.spark.conftest import Trained

TOOLBOX = {
    "augment": {"rotation": 5, "crop_padding": 1, "mixup": 0.1},
    "transfer": {"frozen_epochs": 1, "layers": 1, "rate": 0.5},
    "optimizer": {
        "name": "momentum",
        "learning_rate": 0.01,
        "average": 0.5,
        "clip_norm": 5.0,
        "weight_decay": 1e-4,
        "schedule": {"name": "cosine", "warmup_epochs": 0.5},
    },
}


def training(trained: Trained, **sections: object) -> TrainSettings:
    """Return the settings of `trained` with other sections and the same store, without registration."""
    values = trained.settings.model_dump() | {"register": {}}
    for name, section in sections.items():
        values[name] = values[name] | section
    return TrainSettings(**values)


def checkpoint_of(model: TrainedModel, trained: Trained, epoch: int, folder: Path) -> dict[str, list[np.ndarray]]:
    """Return the weights of a checkpoint of a run, by layer."""
    tracker = Tracker(model.run_id, "", connect(trained.settings.tracking))
    network, _ = read_checkpoint(tracker.fetch_checkpoint(epoch, folder))
    return {layer.name: layer.get_weights() for layer in network.layers if layer.weights}


@pytest.fixture(scope="module")
def registered(spark: SparkSession, trained: Trained) -> str:
    """The URI of a registered model to start from."""
    train(spark, training(trained, train={"epochs": 1}, register={"name": "toolbox", "alias": "base"}))
    return "models:/toolbox@base"


@pytest.mark.parametrize("workers", [0, 2])
def test_whole_toolbox_trains(
    spark: SparkSession, trained: Trained, registered: str, workers: int, tmp_path: Path
) -> None:
    settings = training(
        trained,
        model={"weights": registered},
        train={"workers": workers, "worker_batch_size": 16, "epochs": 2, "patience": 0},
        **TOOLBOX,
    )
    model = train(spark, settings)
    run = mlflow.MlflowClient(connect(settings.tracking)).get_run(model.run_id)
    # The run has the version that the alias named, and every setting of the toolbox.
    assert run.data.params["model.weights"] == "models:/toolbox/1"
    assert run.data.params["augment.mixup"] == "0.1"
    assert run.data.params["transfer.layers"] == "1"
    # The second epoch ends one step before the end of the cosine.
    assert model.history["learning_rate"][1] < 0.5 * model.history["learning_rate"][0]
    first, last = (checkpoint_of(model, trained, epoch, tmp_path) for epoch in (1, 2))
    moved = [
        name for name in first if any(not np.array_equal(*pair) for pair in zip(first[name], last[name], strict=True))
    ]
    assert moved == ["hidden_1", "logits"]
    assert {f"dead_units/{name}" for name in ("conv_1", "conv_2", "hidden_1")} <= model.history.keys()


@pytest.mark.parametrize("workers", [0, 2])
def test_diverging_loss_ends_with_the_image_ids_of_its_step(
    spark: SparkSession, trained: Trained, workers: int
) -> None:
    settings = training(
        trained,
        train={"workers": workers, "worker_batch_size": 16, "epochs": 2},
        optimizer={"name": "sgd", "learning_rate": 1e20},
    )
    with pytest.raises(DivergenceError, match=r"with a learning rate of 1e\+20, which is too high") as raised:
        train(spark, settings)
    ids = raised.value.quoted
    assert len(set(ids)) == len(ids) == 16
    files = [trained.image_set.folder.path(file.path) for file in trained.image_set.split("train").files]
    known = {row.image_id for row in spark.read.parquet(*files).select("image_id").collect()}
    assert set(ids) <= known


def test_warnings_are_in_the_result_and_in_the_run(spark: SparkSession, trained: Trained) -> None:
    slow = training(trained, train={"epochs": 2, "patience": 0}, optimizer={"name": "sgd", "learning_rate": 1e-7})
    model = train(spark, slow)
    assert model.warnings[0].startswith("the learning rate may be too low: after 2 epochs loss is 2.")
    run = mlflow.MlflowClient(connect(slow.tracking)).get_run(model.run_id)
    assert run.data.tags[tag_key(WARNINGS)].splitlines() == list(model.warnings)


def test_missing_starting_weights_are_refused(spark: SparkSession, trained: Trained) -> None:
    with pytest.raises(ModelError, match=r"model=models:/nothing@champion cannot be read"):
        train(spark, training(trained, model={"weights": "models:/nothing@champion"}))
    with pytest.raises(ConfigError, match=r"model\.weights=nowhere is not there"):
        train(spark, training(trained, model={"weights": "nowhere"}))


@pytest.mark.parametrize("workers", [0, 2])
def test_sweep_suggests_a_rate_that_learns(spark: SparkSession, trained: Trained, workers: int) -> None:
    sgd = {"name": "sgd"}
    found = find_rate(
        spark,
        training(trained, train={"workers": workers, "worker_batch_size": 16, "find_rate": True}, optimizer=sgd),
    )
    # At this rate the loss fell. It diverged only at much higher rates.
    assert 1e-3 < found.suggested < 1.0
    assert found.sweep.rates[0] == pytest.approx(1e-7)
    assert list(found.sweep.rates) == sorted(found.sweep.rates)
    assert min(found.sweep.smoothed) < 0.8 * found.sweep.losses[0]
    assert Path(found.figure).read_bytes().startswith(b"\x89PNG")
    run = mlflow.MlflowClient(connect(trained.settings.tracking)).get_run(found.run_id)
    assert (run.info.status, run.data.params["train.find_rate"]) == ("FINISHED", "True")
    suggested = {"learning_rate": found.suggested}
    model = train(spark, training(trained, train={"epochs": 3, "worker_batch_size": 16}, optimizer=sgd | suggested))
    assert model.history["val_accuracy"][-1] > 0.5
