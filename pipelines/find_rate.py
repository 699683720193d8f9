"""A sweep of the learning rate in place of a training: on the driver or on workers, kept in an MLflow run."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pyspark.sql import SparkSession

from cnnlib.config import TrainSettings
from cnnlib.errors import ConfigError
from cnnlib.imageset import open_image_set
from cnnlib.training.compiled_model import global_batch_size, scaled_learning_rate
from cnnlib.training.preconditions import check_fit
from cnnlib.training.rate_finder import RateSweep
from cnnlib.training.transfer import rate_share
from pipelines.fitting import SWEEP_FIGURE, SWEEP_FILE
from pipelines.progress import Progress
from pipelines.runs import tracked_run
from pipelines.starting_weights import with_pinned_weights
from pipelines.store import connect
from pipelines.tracking import RATE_SWEEP
from pipelines.train import described_settings, fit_or_launch
from pipelines.train_on_workers import check_workers


@dataclass(frozen=True)
class FoundRate:
    """A sweep and the rate it suggests; where its figure is, and the run's page."""

    sweep: RateSweep
    suggested: float
    figure: str
    run_id: str
    run_url: str


def find_rate(spark: SparkSession, settings: TrainSettings, progress: Progress | None = None) -> FoundRate:
    """Sweep the learning rate as the training of these settings would begin; nothing is registered.

    The suggestion is for `optimizer.learning_rate`, before `optimizer.scaling` and `transfer.rate`. Raises what
    `pipelines.train.train` raises, and ConfigError where no rate lowers the loss.
    """
    progress = progress or Progress()
    image_set = open_image_set(settings.data.path)
    check_fit(image_set, settings)
    uri = connect(settings.tracking)
    settings = with_pinned_weights(settings)
    if settings.train.workers:
        check_workers(spark, settings, uri)
    name = f"learning rate of {settings.model.name} on {image_set.name}"
    described = described_settings(settings, uri)
    with tracked_run(uri, settings.tracking.experiment, name, None, described, image_set) as tracker:
        fit_or_launch(spark, image_set, settings, tracker, progress)
        with TemporaryDirectory(prefix="sparkcnn-sweep-") as temporary:
            sweep = RateSweep.read(tracker.fetch_rate_sweep(SWEEP_FILE, Path(temporary)))
        suggested = sweep.suggested
        figure = tracker.place_of(f"{RATE_SWEEP}/{SWEEP_FIGURE}")
        if suggested is None:
            raise ConfigError(
                f"no learning rate from {sweep.rates[0]:.0e} to {sweep.rates[-1]:.0e} lowered the loss, which began at "
                f"{sweep.losses[0]:.4f}; look at {figure}, at the labels and at the model"
            )
        optimizer = settings.optimizer
        share = scaled_learning_rate(optimizer, global_batch_size(settings)) / optimizer.learning_rate
        if settings.model.weights is not None:
            share *= rate_share(settings.transfer, 0)
        return FoundRate(sweep, suggested / share, figure, tracker.run_id, tracker.run_url)
