"""The settings of doctor: those of train, all optional, and an output folder."""

from pydantic import Field

from cnnlib.config.settings import Settings
from cnnlib.config.train import DataSettings, RegisterSettings, TrainingSections


class DoctorDataSettings(DataSettings):
    """The images of the training to check."""

    path: str | None = Field(None, description="an image set that ingest wrote")  # type: ignore[assignment]


class DoctorOutputSettings(Settings):
    """The output folder of ingest or score to check."""

    path: str | None = Field(
        None, description="folder in which doctor tries to write, from the driver and from Spark tasks"
    )


class DoctorSettings(TrainingSections):
    """Check what a training needs before it starts: versions, Spark, network, GPUs, image set, MLflow and paths."""

    data: DoctorDataSettings = DoctorDataSettings()
    register: RegisterSettings = RegisterSettings()
    output: DoctorOutputSettings = DoctorOutputSettings()
    timeout_s: float = Field(
        60.0, gt=0, allow_inf_nan=False, description="seconds that one check may take; a longer one is a problem"
    )
