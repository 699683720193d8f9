"""A sweep of the learning rate, and the rate that it suggests."""

import numpy as np
import pytest

from cnnlib.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

from cnnlib.reports.rate_sweep import rate_sweep_figure  # noqa: E402
from cnnlib.training.rate_finder import HIGHEST_RATE, LOWEST_RATE, STEPS, RateSweep, rate_of, sweep_rates  # noqa: E402
from tests.unit.image_sets import write_image_set  # noqa: E402
from tests.unit.trainings import CLASSES, TRAIN_ROWS, VAL_ROWS, settings, striped_images  # noqa: E402


def sweep_with_a_fall_at(rate: float) -> RateSweep:
    rates = [rate_of(step) for step in range(150)]
    losses = 2.3 - 2 / (1 + np.exp(-4 * np.log(np.array(rates) / rate)))
    return RateSweep(tuple(rates), tuple(losses.tolist()))


@pytest.mark.parametrize("rate", [1e-4, 1e-2])
def test_suggested_rate_is_where_the_loss_falls_most_steeply(rate):
    # The average lags by some steps; 25 steps raise the rate tenfold.
    assert rate <= sweep_with_a_fall_at(rate).suggested < 3 * rate


def test_no_rate_is_suggested_without_a_fall():
    rates = tuple(rate_of(step) for step in range(100))
    assert RateSweep(rates, (2.3,) * 99 + (2.2,)).suggested is None
    assert RateSweep(rates, tuple(np.linspace(2.3, 9.2, 100))).suggested is None


def test_written_sweep_is_read_again(tmp_path):
    sweep = sweep_with_a_fall_at(1e-3)
    sweep.write(tmp_path / "sweep.json")
    assert RateSweep.read(tmp_path / "sweep.json") == sweep


def test_rates_rise_evenly_in_their_logarithm():
    steps = np.diff(np.log([rate_of(step) for step in range(STEPS)]))
    np.testing.assert_allclose(steps, np.log(HIGHEST_RATE / LOWEST_RATE) / (STEPS - 1))


def test_sweep_ends_when_the_loss_has_risen_far(tmp_path):
    # Every fifth label is wrong, so the loss and its gradient never come near 0.
    images, labels = striped_images(TRAIN_ROWS + VAL_ROWS)
    labels[::5] = (labels[::5] + 1) % len(CLASSES)
    splits = ["train"] * TRAIN_ROWS + ["val"] * VAL_ROWS
    image_set = write_image_set(tmp_path, images, labels, splits, classes=CLASSES)
    steps = []
    given = settings(image_set, optimizer={"name": "sgd"})
    _, sweep = sweep_rates(image_set, given, on_step=lambda done, total, note: steps.append(done))
    assert len(sweep.losses) == len(sweep.rates) == len(steps) - 1 < STEPS
    assert np.isfinite(sweep.losses).all()
    assert sweep.suggested is not None
    assert min(sweep.smoothed) < 0.7 * sweep.losses[0]
    figure = rate_sweep_figure(sweep.rates, sweep.losses, sweep.smoothed, sweep.suggested)
    assert figure.startswith(b"\x89PNG")
    assert figure != rate_sweep_figure(sweep.rates, sweep.losses, sweep.smoothed, None)
