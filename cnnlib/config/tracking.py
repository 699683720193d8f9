"""Where MLflow keeps what the jobs tell it."""

from pydantic import Field

from cnnlib.config.settings import Settings


class StoreSettings(Settings):
    """Where MLflow keeps runs and models."""

    uri: str | None = Field(
        None, description="MLflow tracking URI; else MLFLOW_TRACKING_URI, else SQLite in the working folder"
    )


class TrackingSettings(StoreSettings):
    """Where MLflow keeps runs and models, and under which experiment."""

    experiment: str = Field("sparkcnn", description="MLflow experiment, made where it does not exist")
