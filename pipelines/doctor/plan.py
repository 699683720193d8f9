"""A model, the time of a step and a network -> what many workers are expected to bring, beside published figures."""

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
from cnnlib.training.compiled_model import compile_model
from cnnlib.training.scaling import Network, Scaling, expected_scaling
from cnnlib.training.step_time import gradient_bytes, measure_step_seconds
from pipelines.tracking.runs import read_run


@dataclass(frozen=True)
class Plan:
    """What is expected of each number of workers, and of what it follows.

    `image_shape` is (height, width, channels), `source` says in words where `step_seconds` is from.
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
class _Trained:
    """What a run, or the settings, say of the training that is planned; without `step_seconds`, it is to measure."""

    model: ModelSettings
    image_set: str | None
    worker_batch_size: int
    step_seconds: float | None
    source: str


def plan_scaling(settings: PlanSettings) -> Plan:
    """Work out what training on many workers would bring.

    Raises ConfigError, ImageSetError or TrackingError for a run, an image set or a model that cannot be used.
    """
    trained = _of_run(settings, settings.run) if settings.run else _of_settings(settings)
    shape, classes = _images(trained.image_set, settings.image)
    model = build_model(trained.model.name, image_shape=shape, classes=classes, **trained.model.options)
    step_seconds = trained.step_seconds or _measure(model, trained, settings.measured_steps)
    message_bytes = gradient_bytes(model)
    network = Network(
        latency_s=settings.network.latency_us * 1e-6,
        bytes_per_second=settings.network.bandwidth_gbit * 1e9 / 8,
    )
    return Plan(
        settings=settings,
        model=trained.model,
        image_shape=shape,
        classes=classes,
        parameters=message_bytes // 4,
        message_bytes=message_bytes,
        worker_batch_size=trained.worker_batch_size,
        step_seconds=step_seconds,
        source=trained.source,
        scalings=tuple(
            expected_scaling(
                workers,
                step_seconds=step_seconds,
                worker_batch_size=trained.worker_batch_size,
                message_bytes=message_bytes,
                network=network,
            )
            for workers in settings.worker_counts
        ),
    )


def _of_settings(settings: PlanSettings) -> _Trained:
    source = "as given" if settings.step_seconds else f"median of {settings.measured_steps} steps measured here"
    return _Trained(settings.model, settings.data.path, settings.worker_batch_size, settings.step_seconds, source)


def _of_run(settings: PlanSettings, run_id: str) -> _Trained:
    run = read_run(settings.tracking, run_id, STEP_SECONDS)
    if not run.values:
        raise ConfigError(f"run={run_id} has no metric {STEP_SECONDS}; take a run of sparkcnn train, or step_seconds")
    workers = int(run.params.get("train.workers", "0"))
    if workers > 1:
        # Its steps have an exchange in them already, over a network that need not be the one of the plan.
        raise ConfigError(f"run={run_id} is of train.workers={workers}; take a run of one worker, or step_seconds")
    try:
        model, batch = _model_of(run.params), int(run.params["train.worker_batch_size"])
        image_set = settings.data.path or run.params["data.path"]
    except (KeyError, ValueError) as error:
        raise ConfigError(f"run={run_id} lacks a setting of sparkcnn train ({error}); take step_seconds") from error
    # The first epoch also traces the model's graph.
    epochs = run.values[1:] or run.values
    source = f"median of {len(epochs)} epoch{'s' if len(epochs) > 1 else ''} of run {run_id}, its feed included"
    return _Trained(model, image_set, batch, statistics.median(epochs), source)


def _model_of(params: Mapping[str, str]) -> ModelSettings:
    """The model of a run's flat parameters, whose values MLflow keeps as text.

    >>> _model_of({"model.name": "lenet", "model.options.activation": "tanh", "data.path": "set"}).options
    {'activation': 'tanh'}
    """
    options: dict[str, Any] = {}
    for name, text in params.items():
        if name.startswith("model.options."):
            *sections, last = name.split(".")[2:]
            into = options
            for section in sections:
                into = into.setdefault(section, {})
            into[last] = _value(text)
    return ModelSettings(name=params["model.name"], options=options)


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def _images(image_set: str | None, image: PlanImageSettings) -> tuple[tuple[int, int, int], int]:
    """(height, width, channels) of the images, and the number of their classes."""
    if image_set is None:
        return (image.height, image.width, image.channels), image.classes
    opened = open_image_set(image_set)
    return opened.image.shape, len(opened.classes)


def _measure(model: keras.Model, trained: _Trained, steps: int) -> float:
    settings = TrainSettings(
        data=DataSettings(path=trained.image_set or ""),
        model=trained.model,
        train=FitSettings(worker_batch_size=trained.worker_batch_size),
    )
    return measure_step_seconds(compile_model(model, settings), trained.worker_batch_size, steps)
