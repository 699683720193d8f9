"""A notebook whose MLflow is set up otherwise: autologging, a chosen experiment, variables that name another run."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.utils.autologging_utils import AUTOLOGGING_INTEGRATIONS, autologging_is_disabled
from pyspark.sql import SparkSession

from cnnlib.config import FitSettings, RegisterSettings, TrackingSettings
from pipelines.train.flow import train
from tests.spark.conftest import Trained


@pytest.mark.filterwarnings("ignore")
def test_training_is_the_same_with_autologging_and_variables(
    spark: SparkSession,
    trained: Trained,
    tmp_path: Path,
    new_store: Callable[[Path], str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    uri = new_store(tmp_path)
    settings = trained.settings.model_copy(
        update={
            "train": FitSettings(epochs=1, worker_batch_size=128),
            "tracking": TrackingSettings(uri=uri, experiment="ours"),
            "register": RegisterSettings(),
        }
    )
    plain = train(spark, settings)
    client = MlflowClient(uri)
    theirs = client.create_run(client.create_experiment("theirs"))
    client.set_terminated(theirs.info.run_id, "FINISHED")
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("theirs")
    monkeypatch.setenv("MLFLOW_RUN_ID", theirs.info.run_id)
    mlflow.tensorflow.autolog()
    try:
        with caplog.at_level(logging.WARNING, "sparkcnn"):
            second = train(spark, settings)
        assert not autologging_is_disabled("tensorflow")
        assert os.environ["MLFLOW_RUN_ID"] == theirs.info.run_id
    finally:
        mlflow.tensorflow.autolog(disable=True)
        AUTOLOGGING_INTEGRATIONS.pop("tensorflow", None)
        mlflow.tracking.fluent._active_experiment_id = None
        os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
    ours = client.get_experiment_by_name("ours").experiment_id
    first_run, second_run = (client.get_run(one.run_id) for one in (plain, second))
    assert second_run.info.experiment_id == ours
    assert second_run.data.params == first_run.data.params
    assert second_run.data.metrics.keys() == first_run.data.metrics.keys()
    assert len(client.search_runs([ours])) == 2
    after = client.get_run(theirs.info.run_id)
    assert (after.info.status, after.data.params, after.data.metrics) == ("FINISHED", {}, {})
    assert f"MLFLOW_RUN_ID={theirs.info.run_id} is not used" in caplog.text
