"""Where MLflow keeps the runs and models of the jobs."""

from pydantic import Field

from cnnlib.config.settings import MAY_DIFFER_ON_RESUME, SAME_IN_ALL_TRAININGS, Settings


class StoreSettings(Settings):
    """The MLflow store of runs and models."""

    uri: str | None = Field(
        None,
        json_schema_extra=MAY_DIFFER_ON_RESUME | SAME_IN_ALL_TRAININGS,
        description="MLflow tracking URI; null takes MLFLOW_TRACKING_URI, or else an SQLite file in the working folder",
    )


class TrackingSettings(StoreSettings):
    """The MLflow store of runs and models, and the experiment in it."""

    experiment: str = Field(
        "sparkcnn",
        json_schema_extra=SAME_IN_ALL_TRAININGS,
        description="MLflow experiment; it is created if it does not exist",
    )
