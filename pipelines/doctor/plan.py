"""Plan a training on many workers: from the model, the time of a step and the network to the expected speed."""

import ast
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from cnnlib.config import DataSettings, FitSettings, ModelSettings, PlanImageSettings, PlanSettings, TrainSettings
from cnnlib.errors import ConfigError
from cnnlib.image_set.contract import open_image_set
from cnnlib.models import build_model
from cnnlib.training.callbacks import STEP_SECONDS
from cnnlib.training.compiled_model import compile_model, gradient_bytes, measure_step_seconds
from cnnlib.training.scaling import Network, Scaling, expected_scaling
from pipelines.tracking.runs import read_run


@dataclass(frozen=True)
class Plan:
    """The expected speed for each number of workers, and the figures that it was computed from.

    `image_shape` is (height, width, channels). `message_bytes` are the gradients that each step exchanges. `source`
    says in words where `step_seconds` comes from.
    """

    settings: PlanSettings
    model: ModelSettings
    image_shape: tuple[int, int, int]
    classes: int
    parameters: int
    message_bytes: int
    worker_batch_size: int
    step_seconds: float
    source: str
    scalings: tuple[Scaling, ...]


@dataclass(frozen=True)
class _PlannedTraining:
    """The training to plan, from an MLflow run or from the settings. If `step_seconds` is None, it is measured."""

    model: ModelSettings
    image_set: str | None
    worker_batch_size: int
    step_seconds: float | None
    source: str


def plan_scaling(settings: PlanSettings) -> Plan:
    """Compute how fast a training would be with each number of `settings.workers`.

    Raises ConfigError, ImageSetError or TrackingError for a run, an image set or a model that cannot be used.

    Example:

        plan = plan_scaling(PlanSettings(workers="16,64", step_seconds=0.02))
        for scaling in plan.scalings:
            print(scaling.workers, scaling.images_per_second, scaling.efficiency)
    """
    training = _training_of_run(settings, settings.run) if settings.run else _training_of_settings(settings)
    shape, classes = _shape_and_classes(training.image_set, settings.image)
    model = build_model(training.model.name, image_shape=shape, classes=classes, **training.model.options)
    step_seconds = training.step_seconds or _measure(model, training, settings.measured_steps)
    message_bytes = gradient_bytes(model)
    network = Network(
        latency_s=settings.network.latency_us * 1e-6,
        bytes_per_second=settings.network.bandwidth_gbit * 1e9 / 8,
    )
    return Plan(
        settings=settings,
        model=training.model,
        image_shape=shape,
        classes=classes,
        parameters=message_bytes // 4,
        message_bytes=message_bytes,
        worker_batch_size=training.worker_batch_size,
        step_seconds=step_seconds,
        source=training.source,
        scalings=tuple(
            expected_scaling(
                workers,
                step_seconds=step_seconds,
                worker_batch_size=training.worker_batch_size,
                message_bytes=message_bytes,
                network=network,
            )
            for workers in settings.worker_counts
        ),
    )


def _training_of_settings(settings: PlanSettings) -> _PlannedTraining:
    source = "as given" if settings.step_seconds else f"median of {settings.measured_steps} steps measured here"
    return _PlannedTraining(
        settings.model, settings.data.path, settings.worker_batch_size, settings.step_seconds, source
    )


def _training_of_run(settings: PlanSettings, run_id: str) -> _PlannedTraining:
    run = read_run(settings.tracking, run_id, STEP_SECONDS)
    if not run.values:
        raise ConfigError(
            f"run={run_id} has no metric {STEP_SECONDS}; name a run of sparkcnn train, or give step_seconds instead"
        )
    workers = int(run.params.get("train.workers", "0"))
    if workers > 1:
        # Its steps already contain an exchange of gradients, perhaps over another network than the planned one.
        raise ConfigError(
            f"run={run_id} was trained with train.workers={workers}; name a run of one worker, or give step_seconds "
            "instead"
        )
    try:
        model, batch_size = _model_settings(run.params), int(run.params["train.worker_batch_size"])
        image_set = settings.data.path or run.params["data.path"]
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"run={run_id} lacks a setting of sparkcnn train ({error}); give step_seconds instead of a run"
        ) from error
    # Leave out the first epoch, in which TensorFlow also traces the graph of the model.
    epochs = run.values[1:] or run.values
    source = f"median of {len(epochs)} epoch{'s' if len(epochs) > 1 else ''} of run {run_id}, its feed included"
    return _PlannedTraining(model, image_set, batch_size, statistics.median(epochs), source)


def _model_settings(params: Mapping[str, str]) -> ModelSettings:
    """Return the model settings from the flat parameters of an MLflow run, which are all text.

    >>> _model_settings({"model.name": "lenet", "model.options.activation": "tanh", "data.path": "set"}).options
    {'activation': 'tanh'}
    """
    options: dict[str, Any] = {}
    for name, text in params.items():
        if name.startswith("model.options."):
            *sections, last = name.split(".")[2:]
            section_options = options
            for section in sections:
                section_options = section_options.setdefault(section, {})
            section_options[last] = _parse(text)
    return ModelSettings(name=params["model.name"], options=options)


def _parse(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def _shape_and_classes(image_set: str | None, image: PlanImageSettings) -> tuple[tuple[int, int, int], int]:
    """Return (height, width, channels) of the images, and the number of classes."""
    if image_set is None:
        return (image.height, image.width, image.channels), image.classes
    opened = open_image_set(image_set)
    return opened.image.shape, len(opened.classes)


def _measure(model: keras.Model, training: _PlannedTraining, steps: int) -> float:
    settings = TrainSettings(
        data=DataSettings(path=training.image_set or ""),
        model=training.model,
        train=FitSettings(worker_batch_size=training.worker_batch_size),
    )
    return measure_step_seconds(compile_model(model, settings), training.worker_batch_size, steps)
