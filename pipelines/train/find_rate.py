"""A sweep of the learning rate instead of a training, in the driver or on workers. An MLflow run has its results."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pyspark.sql import SparkSession

from cnnlib.config import TrainSettings
from cnnlib.errors import ConfigError
from cnnlib.reports.rate_sweep import rate_sweep_figure
from cnnlib.training.learning_rate import global_batch_size, scaled_learning_rate, transfer_rate_factor
from cnnlib.training.rate_finder import RateSweep
from pipelines.spark.progress import Progress
from pipelines.tracking.tracker import RATE_SWEEP
from pipelines.train.flow import fit_or_launch, training_run
from pipelines.train.tracked_fit import SWEEP_FILE

SWEEP_FIGURE = "sweep.png"


@dataclass(frozen=True)
class FoundRate:
    """A sweep and the rate that it suggests. `figure` is the path or page of its figure, `run_url` the run's page."""

    sweep: RateSweep
    suggested: float
    figure: str
    run_id: str
    run_url: str


def find_rate(spark: SparkSession, settings: TrainSettings, progress: Progress | None = None) -> FoundRate:
    """Sweep the learning rate from the start of the training that these settings describe. Register nothing.

    The suggestion is a value for `optimizer.learning_rate`, so it comes before `optimizer.scaling` and `transfer.rate`.
    Raises the errors of `pipelines.train.flow.train`, and ConfigError if no rate lowers the loss.
    """
    progress = progress or Progress()
    with training_run(spark, settings, "learning rate of ") as (image_set, settings, tracker):
        fit_or_launch(spark, image_set, settings, tracker, progress)
        with TemporaryDirectory(prefix="sparkcnn-sweep-") as temporary:
            sweep_file = tracker.fetch_rate_sweep(SWEEP_FILE, Path(temporary))
            sweep = RateSweep.read(sweep_file)
            suggested = sweep.suggested
            figure_bytes = rate_sweep_figure(sweep.rates, sweep.losses, sweep.smoothed, suggested)
            sweep_file.with_name(SWEEP_FIGURE).write_bytes(figure_bytes)
            tracker.log_rate_sweep(sweep_file.parent)
        figure = tracker.location_of(f"{RATE_SWEEP}/{SWEEP_FIGURE}")
        if suggested is None:
            raise ConfigError(
                f"no learning rate from {sweep.rates[0]:.0e} to {sweep.rates[-1]:.0e} lowered the loss, which began at "
                f"{sweep.losses[0]:.4f}; check {figure}, the labels and the model"
            )
        optimizer = settings.optimizer
        factor = scaled_learning_rate(optimizer, global_batch_size(settings)) / optimizer.learning_rate
        if settings.model.weights is not None:
            factor *= transfer_rate_factor(settings.transfer, 0)
        return FoundRate(sweep, suggested / factor, figure, tracker.run_id, tracker.run_url)
