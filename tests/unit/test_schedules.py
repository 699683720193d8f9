"""The learning rate of each schedule, step by step."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnlib.config import ScheduleSettings
from cnnlib.training.learning_rate import count_plateaus, learning_rate_at


def rates(epochs: int = 4, steps: int = 5, monitored=(), direction="max", **schedule) -> list[float]:
    return [
        learning_rate_at(
            ScheduleSettings(**schedule),
            0.8,
            step=step,
            steps_per_epoch=steps,
            epochs=epochs,
            monitored=monitored,
            direction=direction,
        )
        for step in range(epochs * steps)
    ]


def test_constant_stays():
    assert rates() == [0.8] * 20


def test_step_schedule_multiplies_by_its_factor():
    assert rates(name="step", factor=0.5, every_epochs=2) == [0.8] * 10 + [0.4] * 10


def test_cosine_goes_from_the_rate_to_its_final_fraction():
    given = rates(name="cosine", final_fraction=0.25)
    assert given[0] == 0.8
    assert given[10] == pytest.approx(0.2 + 0.6 / 2)
    assert given == sorted(given, reverse=True)
    # The final fraction would be reached one step after the last one.
    assert given[-1] == pytest.approx(0.2 + 0.6 * (1 + math.cos(math.pi * 19 / 20)) / 2)


@pytest.mark.parametrize("name", ["constant", "cosine", "step", "plateau"])
def test_warmup_rises_in_equal_steps(name):
    assert rates(name=name, warmup_epochs=0.8)[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])


def test_cosine_begins_after_the_warmup():
    given = rates(name="cosine", warmup_epochs=2)
    assert given[9] == given[10] == 0.8
    assert given[15] == pytest.approx(0.4)


def test_plateau_lowers_the_rate_without_a_better_value():
    given = rates(name="plateau", factor=0.5, patience=2, monitored=[0.5, 0.6, 0.6, 0.59])
    assert set(given) == {0.4}


@pytest.mark.parametrize(
    ("values", "direction", "count"),
    [
        ([], "max", 0),
        ([0.1, 0.2, 0.3], "max", 0),
        ([0.3, 0.2, 0.1], "max", 1),
        ([0.3, 0.2, 0.1], "min", 0),
        ([1.0, float("nan"), float("nan"), 2.0, 2.0, 2.0], "max", 2),
    ],
)
def test_plateaus_are_counted_by_the_best_so_far(values, direction, count):
    assert count_plateaus(values, 2, direction) == count


@given(st.lists(st.floats(0, 1), max_size=30), st.integers(1, 5))
def test_more_epochs_never_undo_a_plateau(values, patience):
    counts = [count_plateaus(values[:end], patience, "max") for end in range(len(values) + 1)]
    assert counts == sorted(counts)
    assert counts[-1] <= len(values) // patience
