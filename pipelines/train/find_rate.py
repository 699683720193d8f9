"""A sweep of the learning rate in place of a training: on the driver or on workers, kept in an MLflow run."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pyspark.sql import SparkSession

from cnnlib.config import TrainSettings
from cnnlib.errors import ConfigError
from cnnlib.reports.rate_sweep import rate_sweep_figure
from cnnlib.training.compiled_model import global_batch_size, scaled_learning_rate
from cnnlib.training.rate_finder import RateSweep
from cnnlib.training.transfer import rate_share
from pipelines.spark.progress import Progress
from pipelines.tracking.tracker import RATE_SWEEP
from pipelines.train.flow import fit_or_launch, training_run
from pipelines.train.tracked_fit import SWEEP_FILE

SWEEP_FIGURE = "sweep.png"


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
    `pipelines.train.flow.train` raises, and ConfigError where no rate lowers the loss.
    """
    progress = progress or Progress()
    with training_run(spark, settings, "learning rate of ") as (image_set, settings, tracker):
        fit_or_launch(spark, image_set, settings, tracker, progress)
        with TemporaryDirectory(prefix="sparkcnn-sweep-") as temporary:
            fetched = tracker.fetch_rate_sweep(SWEEP_FILE, Path(temporary))
            sweep = RateSweep.read(fetched)
            suggested = sweep.suggested
            drawn = rate_sweep_figure(sweep.rates, sweep.losses, sweep.smoothed, suggested)
            fetched.with_name(SWEEP_FIGURE).write_bytes(drawn)
            tracker.log_rate_sweep(fetched.parent)
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
