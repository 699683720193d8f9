"""What a job can refuse before Spark and TensorFlow start, which takes ten seconds and more.

The calls of `pipelines` make the same checks again, because a notebook has a session already.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cnnlib.config import (
        CompareSettings,
        EvaluateSettings,
        IngestSettings,
        PromoteSettings,
        ScoreSettings,
        TrainSettings,
        TuneSettings,
    )


def check_ingest(settings: "IngestSettings") -> None:
    """Raise ConfigError, SourceError or OutputExistsError for an ingest that would fail."""
    from cnnlib.storage.folder import open_folder
    from pipelines.ingest.earlier_set import earlier_set
    from pipelines.ingest.flow import check_image_size
    from pipelines.sources.files import check_path

    check_image_size(settings)
    # The name of a table is no path, and Spark may have a file system that Python lacks.
    if settings.source.path is not None and settings.source.format != "table":
        check_path(settings.source.path)
    earlier_set(open_folder(settings.output.path), settings)


def check_train(settings: "TrainSettings") -> None:
    """Raise ConfigError or ImageSetError for a training that would fail."""
    from cnnlib.image_set.contract import open_image_set
    from cnnlib.training.preconditions import check_fit

    check_fit(open_image_set(settings.data.path), settings)


def check_trainings(settings: "CompareSettings | TuneSettings") -> None:
    """Raise ConfigError or ImageSetError for trainings that would all fail. A varied setting may decide the others."""
    from cnnlib.image_set.contract import open_image_set
    from cnnlib.training.preconditions import check_classes

    check_classes(open_image_set(settings.data.path))


def check_evaluate(settings: "EvaluateSettings | PromoteSettings") -> None:
    """Raise ImageSetError, ModelError or TrackingError for an evaluation or promotion that would fail."""
    from cnnlib.config import EvaluateSettings
    from cnnlib.image_set.contract import open_image_set

    if settings.data.path is not None:
        open_image_set(settings.data.path).split(settings.data.split)
    if isinstance(settings, EvaluateSettings):
        _check_model(settings)


def check_score(settings: "ScoreSettings") -> None:
    """Raise the error that scoring would end with. A source is not opened here, so it is never a SourceError."""
    from cnnlib.image_set.contract import open_image_set
    from cnnlib.predictions.contract import COMMIT
    from cnnlib.storage.folder import check_output_is_free, open_folder

    adding = settings.score.mode != "all"
    check_output_is_free(open_folder(settings.output.path), COMMIT, overwrite=settings.output.overwrite or adding)
    if settings.input.format == "image_set" and settings.input.path is not None:
        open_image_set(settings.input.path)
    _check_model(settings)


def _check_model(settings: "ScoreSettings | EvaluateSettings") -> None:
    from pipelines.tracking.registry import check_model
    from pipelines.tracking.store import connect

    connect(settings.tracking)
    check_model(settings.model)
