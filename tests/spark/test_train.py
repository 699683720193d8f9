"""Train on an image set: the MLflow run and the registered model."""

from collections.abc import Callable
from pathlib import Path

import keras
import mlflow
import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from cnnlib.config import (
    DataSettings,
    ImageSetOutputSettings,
    ImageSettings,
    IngestSettings,
    RegisterSettings,
    SourceSettings,
    TrackingSettings,
    TrainSettings,
    flatten,
)
from cnnlib.errors import ImageSetError, ModelError, TrackingError
from cnnlib.feed.blocks import read_split
from cnnlib.image_set.contract import ImageSet
from cnnlib.sealed.frozen.images import encode_png
from pipelines.ingest.flow import ingest
from pipelines.tracking.registry import fetch_model
from pipelines.tracking.store import connect
from pipelines.train.flow import TrainedModel, train
from tests.spark.conftest import EPOCHS, Trained


@pytest.fixture
def client(trained: Trained) -> mlflow.MlflowClient:
    connect(trained.tracking)
    return mlflow.MlflowClient()


def val_pixels(image_set: ImageSet) -> np.ndarray:
    images, _ = next(read_split(image_set, "val"))
    return images


def check_champion_is_epoch(epoch: int, model: TrainedModel, image_set: ImageSet, folder: Path) -> None:
    """Assert that the registered model predicts the same as the checkpoint of this epoch."""
    checkpoint = mlflow.artifacts.download_artifacts(
        run_id=model.run_id, artifact_path=f"checkpoints/epoch-{epoch:04d}", dst_path=str(folder)
    )
    pixels = val_pixels(image_set)
    logits = keras.saving.load_model(Path(checkpoint) / "model.keras").predict(pixels, verbose=0)
    pyfunc = mlflow.pyfunc.load_model("models:/digits@champion")
    predicted = pyfunc.predict(pd.DataFrame({"image": [encode_png(image) for image in pixels]}))
    np.testing.assert_allclose(np.stack(predicted["probabilities"]), keras.ops.softmax(logits), atol=1e-5)
    assert predicted["label"].tolist() == logits.argmax(axis=1).tolist()


@pytest.mark.main_path
def test_every_setting_is_a_parameter_of_the_run(trained: Trained, client: mlflow.MlflowClient) -> None:
    params = client.get_run(trained.model.run_id).data.params
    described = {name: str(value) for name, value in flatten(trained.settings).items() if name != "train.resume"}
    # The run also has the values that are computed from the settings.
    assert params == described | {"global_batch_size": "32", "scaled_learning_rate": "0.001"}
    assert params["train.seed"] == "5"


@pytest.mark.main_path
@pytest.mark.parametrize("metric", ["loss", "accuracy", "val_loss", "val_accuracy", "images_per_second"])
def test_every_epoch_has_its_metrics(trained: Trained, client: mlflow.MlflowClient, metric: str) -> None:
    logged = client.get_metric_history(trained.model.run_id, metric)
    assert [(m.step, m.value) for m in logged] == list(enumerate(trained.model.history[metric], start=1))
    assert len(logged) == EPOCHS


@pytest.mark.main_path
def test_every_epoch_has_a_checkpoint_that_loads(trained: Trained, client: mlflow.MlflowClient, tmp_path: Path) -> None:
    run_id = trained.model.run_id
    names = [artifact.path for artifact in client.list_artifacts(run_id, "checkpoints")]
    assert names == [f"checkpoints/epoch-{epoch:04d}" for epoch in range(1, EPOCHS + 1)]
    # The last checkpoint has the validation accuracy of the last epoch, so it is the model of that epoch.
    folder = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=names[-1], dst_path=str(tmp_path))
    model = keras.saving.load_model(Path(folder) / "model.keras")
    images, labels = zip(*read_split(trained.image_set, "val"), strict=True)
    _, accuracy = model.evaluate(np.concatenate(images), np.concatenate(labels), verbose=0)
    assert accuracy == pytest.approx(trained.model.history["val_accuracy"][-1], abs=1e-6)
    assert int(model.optimizer.iterations) == EPOCHS * -(-trained.image_set.split("train").rows // 32)


def test_run_names_the_image_set(trained: Trained, client: mlflow.MlflowClient) -> None:
    run = client.get_run(trained.model.run_id)
    (dataset_input,) = run.inputs.dataset_inputs
    assert dataset_input.dataset.digest == trained.image_set.fingerprint[:36]
    assert run.data.tags["sparkcnn_fingerprint"] == trained.image_set.fingerprint
    assert run.info.status == "FINISHED"


def test_run_accounts_for_every_image_and_keeps_the_report(
    trained: Trained, client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    run_id, counts = trained.model.run_id, trained.image_set.counts
    tags = client.get_run(run_id).data.tags
    tagged = {name: tags[f"sparkcnn_images_{name}"] for name in vars(counts)}
    assert tagged == {name: str(count) for name, count in vars(counts).items()}
    artifact = mlflow.artifacts.download_artifacts(
        run_id=run_id, artifact_path="image_set/report.html", dst_path=str(tmp_path)
    )
    assert trained.image_set.fingerprint in Path(artifact).read_text()


@pytest.mark.main_path
def test_best_epoch_is_registered_with_signature_and_alias(
    trained: Trained, client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    version = client.get_model_version_by_alias("digits", "champion")
    assert (str(version.version), version.run_id) == (trained.model.version, trained.model.run_id)
    info = mlflow.models.get_model_info("models:/digits@champion")
    assert [column.name for column in info.signature.inputs] == ["image"]
    assert info.saved_input_example_info is not None
    accuracies = trained.model.history["val_accuracy"]
    assert accuracies[trained.model.best_epoch - 1] == max(accuracies)
    check_champion_is_epoch(trained.model.best_epoch, trained.model, trained.image_set, tmp_path)


def test_best_epoch_is_registered_even_if_not_the_last(
    spark: SparkSession, trained: Trained, tmp_path: Path, new_store: Callable[[Path], str]
) -> None:
    # The first epoch has the lowest training accuracy, and "min" makes that the best.
    lowest = trained.settings.train.model_copy(update={"epochs": 2, "monitor": "accuracy", "direction": "min"})
    tracking = TrackingSettings(uri=new_store(tmp_path))
    model = train(spark, trained.settings.model_copy(update={"tracking": tracking, "train": lowest}))
    first, last = model.history["accuracy"]
    assert first < last
    run = mlflow.MlflowClient().get_run(model.run_id).data
    assert (model.best_epoch, run.tags["sparkcnn_best_epoch"], run.metrics["best_accuracy"]) == (1, "1", first)
    check_champion_is_epoch(1, model, trained.image_set, tmp_path)


def test_training_again_gives_version_2_and_moves_the_alias(
    spark: SparkSession, trained: Trained, tmp_path: Path, new_store: Callable[[Path], str]
) -> None:
    tracking = TrackingSettings(uri=new_store(tmp_path))
    short = trained.settings.train.model_copy(update={"epochs": 1})
    settings = trained.settings.model_copy(update={"tracking": tracking, "train": short})
    assert [train(spark, settings).version, train(spark, settings).version] == ["1", "2"]
    assert str(mlflow.MlflowClient().get_model_version_by_alias("digits", "champion").version) == "2"
    kept = settings.model_copy(update={"register": RegisterSettings(name="digits", alias=None)})
    assert train(spark, kept).version == "3"
    assert str(mlflow.MlflowClient().get_model_version_by_alias("digits", "champion").version) == "2"


def test_without_a_name_nothing_is_registered(
    spark: SparkSession, trained: Trained, tmp_path: Path, new_store: Callable[[Path], str]
) -> None:
    tracking = TrackingSettings(uri=new_store(tmp_path))
    short = trained.settings.train.model_copy(update={"epochs": 1})
    settings = trained.settings.model_copy(
        update={"tracking": tracking, "train": short, "register": RegisterSettings()}
    )
    model = train(spark, settings)
    assert model.version is None
    assert mlflow.MlflowClient().search_registered_models() == []
    assert fetch_model(model.model_uri, tmp_path / "model").scored_with.version is None


@pytest.mark.skipif(not hasattr(mlflow.MlflowClient, "create_prompt"), reason="MLflow 2 has no prompts")
def test_model_that_the_registry_refused_is_registered_later(
    spark: SparkSession, trained: Trained, tmp_path: Path, new_store: Callable[[Path], str]
) -> None:
    tracking = TrackingSettings(uri=new_store(tmp_path))
    short = trained.settings.train.model_copy(update={"epochs": 1})
    settings = trained.settings.model_copy(update={"tracking": tracking, "train": short})
    client = mlflow.MlflowClient(connect(tracking))
    # Prompts and models use the same names in the registry.
    client.create_prompt("digits")
    with pytest.raises(TrackingError) as error:
        train(spark, settings)
    assert "\n" not in error.value.message
    (run,) = client.search_runs([client.get_experiment_by_name(settings.tracking.experiment).experiment_id])
    assert error.value.message.endswith(f"all epochs are kept: go on with --train.resume {run.info.run_id}")
    again = settings.model_copy(
        update={
            "train": short.model_copy(update={"resume": run.info.run_id}),
            "register": RegisterSettings(name="figures"),
        }
    )
    model = train(spark, again)
    assert (model.run_id, model.version) == (run.info.run_id, "1")
    assert client.get_model_version_by_alias("figures", "champion").run_id == model.run_id


def test_folder_that_is_no_image_set_starts_no_run(spark: SparkSession, tmp_path: Path) -> None:
    settings = TrainSettings(
        data=DataSettings(path=str(tmp_path)), tracking=TrackingSettings(uri=f"sqlite:///{tmp_path}/mlflow.db")
    )
    with pytest.raises(ImageSetError, match=r"has no dataset\.json"):
        train(spark, settings)
    assert not (tmp_path / "mlflow.db").exists()


def test_silent_server_is_refused_before_training(spark: SparkSession, trained: Trained) -> None:
    # Nothing listens on port 9, the discard service.
    settings = trained.settings.model_copy(update={"tracking": TrackingSettings(uri="http://127.0.0.1:9")})
    with pytest.raises(TrackingError, match=r"tracking\.uri=http://127\.0\.0\.1:9 does not answer"):
        train(spark, settings)


@pytest.mark.parametrize("uri", ["models:/nobody@champion", "models:/digits/99", "models:/digits@nobody", "nonsense"])
def test_unknown_model_is_refused_in_one_line(trained: Trained, tmp_path: Path, uri: str) -> None:
    connect(trained.tracking)
    with pytest.raises(ModelError) as error:
        fetch_model(uri, tmp_path)
    assert "\n" not in error.value.message
    assert uri in error.value.message


def test_set_of_png_files_is_trained_on_and_registered(
    spark: SparkSession, trained: Trained, digits_idx: Path, tmp_path: Path
) -> None:
    encoded = ingest(
        spark,
        IngestSettings(
            source=SourceSettings(format="idx", path=str(digits_idx)),
            image=ImageSettings(encoding="png"),
            output=ImageSetOutputSettings(path=str(tmp_path / "set")),
        ),
    )
    settings = TrainSettings(
        data=DataSettings(path=encoded.folder.uri),
        train=trained.settings.train,
        tracking=trained.tracking,
        register=RegisterSettings(name="digits-as-png", alias=None),
    )
    model = train(spark, settings)
    # The pixels, the seed and so the order of the rows equal those of the raw set. So the models are equal too.
    assert model.history["val_loss"] == pytest.approx(trained.model.history["val_loss"], rel=1e-3)
    card = fetch_model(f"models:/digits-as-png/{model.version}", tmp_path / "model").card
    assert sum(card.confidence_shares) == pytest.approx(1)
