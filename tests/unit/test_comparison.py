"""The settings of compare, and its statistics, table and figures."""

import csv
import io
import math

import numpy as np
import pytest
from PIL import Image

from cnnlib.config import CompareSettings
from cnnlib.config.overrides import override, read_value, split_values
from cnnlib.errors import ConfigError
from cnnlib.reports.curves import comparison_figure, importance_figure
from cnnlib.reports.style import COLOURS
from cnnlib.tuning.comparison import Attempt, Comparison, Contender, as_csv, spread_of
from jobs.settings import parse_settings

NAN = math.nan


def attempt(seed: int, accuracies: list[float], seconds: float = 1.0) -> Attempt:
    return Attempt(seed, f"run-{seed}", seconds, {"val_accuracy": accuracies, "loss": [1 - a for a in accuracies]})


ADAM = Contender("adam", (attempt(0, [0.5, 0.9, 0.8], 3.0), attempt(1, [0.6, 0.7, 0.8], 5.0)))
SGD = Contender("sgd", (attempt(0, [0.1, 0.2, 0.3]), attempt(1, [0.1, 0.2, 0.5])))
COMPARISON = Comparison("optimizer.name", "val_accuracy", "max", (SGD, ADAM))


# --- statistics


def test_deviation_is_the_samples():
    assert spread_of([1.0, 2.0, 3.0, 6.0]).deviation == pytest.approx(math.sqrt(14 / 3))
    assert math.isnan(spread_of([4.0]).deviation)


def test_best_and_last_are_of_each_training():
    best, last = ADAM.best("val_accuracy", "max"), ADAM.last("val_accuracy")
    assert (best.mean, best.deviation) == pytest.approx((0.85, 0.1 / math.sqrt(2)))
    assert (last.mean, last.deviation) == pytest.approx((0.8, 0.0))
    assert ADAM.best("loss", "min").mean == pytest.approx(0.15)


def test_nan_epoch_is_never_the_best():
    assert Contender("x", (attempt(0, [NAN, 0.4, NAN]),)).best("val_accuracy", "max").mean == 0.4
    assert math.isnan(Contender("x", (attempt(0, [NAN, NAN]),)).best("val_accuracy", "min").mean)


def test_curve_is_of_the_seeds_that_reached_an_epoch():
    means, deviations = Contender("x", (attempt(0, [0.2, 0.4, 0.9]), attempt(1, [0.4, 0.8]))).curve("val_accuracy")
    assert means == pytest.approx([0.3, 0.6, 0.9])
    assert deviations == pytest.approx([0.1 * math.sqrt(2), 0.2 * math.sqrt(2), 0.0])


@pytest.mark.parametrize(("direction", "order"), [("max", ["adam", "sgd", "nan"]), ("min", ["sgd", "adam", "nan"])])
def test_best_ranks_first_and_nan_last(direction, order):
    never = Contender("nan", (attempt(0, [NAN]),))
    comparison = Comparison("optimizer.name", "val_accuracy", direction, (never, SGD, ADAM))
    assert [contender.value for contender in comparison.ranking] == order


def test_table_leaves_unknown_deviation_empty():
    single = Comparison("optimizer.name", "val_accuracy", "max", (Contender("adam", ADAM.attempts[:1]),))
    (row,) = csv.DictReader(io.StringIO(as_csv(single.rows())))
    assert row["optimizer.name"] == "adam"
    assert (row["seeds"], row["best_val_accuracy_mean"], row["best_val_accuracy_deviation"]) == ("1", "0.9", "")
    assert (row["last_val_accuracy_mean"], row["seconds_mean"]) == ("0.8", "3.0")


# --- figures


def pixels_in(png: bytes, colour: str) -> int:
    """Count the pixels of a figure that have exactly this colour."""
    wanted = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    return int((np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) == wanted).all(axis=2).sum())


def test_figure_has_a_curve_per_value_and_is_reproducible():
    png = comparison_figure(COMPARISON)
    assert [pixels_in(png, colour) > 0 for colour in COLOURS[:3]] == [True, True, False]
    assert comparison_figure(COMPARISON) == png


def test_figure_of_nan_values_is_drawn():
    png = comparison_figure(
        Comparison("optimizer.name", "val_accuracy", "max", (Contender("x", (attempt(0, [NAN]),)),))
    )
    assert Image.open(io.BytesIO(png)).format == "PNG"


def test_importance_bar_is_as_long_as_its_value():
    few, many = (pixels_in(importance_figure({"a": fraction}, "loss"), COLOURS[0]) for fraction in (0.2, 0.8))
    assert many == pytest.approx(4 * few, rel=0.1)


# --- settings

SET = ["--data.path", "set"]


def parsed(*arguments: str) -> CompareSettings:
    return parse_settings("compare", CompareSettings, [*SET, *arguments])


def test_each_training_has_its_value_and_seed():
    settings = parsed(
        "--compare.over", "model.options.activation=relu,tanh", "--train.seed", "4", "--train.epochs", "9"
    )
    assert settings.seeds == [4, 5, 6]
    training = settings.training("tanh", 5)
    assert (training.model.options, training.train.seed, training.train.epochs) == ({"activation": "tanh"}, 5, 9)
    assert training.register.name is None


def test_numbers_are_numbers():
    settings = parsed("--compare.over", "optimizer.learning_rate=1e-3,0.1", "--compare.seeds", "[7, 2]")
    assert [settings.training(value, 7).optimizer.learning_rate for value in settings.compare.values] == [0.001, 0.1]
    assert settings.seeds == [7, 2]


@pytest.mark.parametrize(
    ("over", "says"),
    [
        ("optimizer.name", "over must be SETTING=VALUE"),
        ("optimizer.name=", "over must be SETTING=VALUE"),
        ("optimizer.name=adam,,sgd", "over must be SETTING=VALUE"),
        ("optimizer.name=adam,adam", "over has a value twice"),
        ("optimizer.nam=adam,sgd", "optimizer.nam is not a setting of train; did you mean optimizer.name?"),
        ("model=lenet,mlp", "model is not a setting of train"),
        ("optimizer.name=adam,adm", "optimizer.name=adm is not valid"),
        ("train.epochs=3,0", "train.epochs=0 is not valid"),
        ("train.seed=1,2", "train.seed must be the same in all trainings"),
        ("register.name=a,b", "register.name must be the same in all trainings"),
    ],
)
def test_invalid_comparison_is_one_line(over, says):
    with pytest.raises(ConfigError, match="^[^\n]*$") as caught:
        parsed("--compare.over", over)
    assert says in caught.value.message


@pytest.mark.parametrize("seeds", ["0", "[]", "[1, 1]", "[-1]"])
def test_invalid_seeds_are_an_error(seeds):
    with pytest.raises(ConfigError, match="seeds must be 1 or more, or a list of different seeds"):
        parsed("--compare.over", "optimizer.name=adam", "--compare.seeds", seeds)


def test_overrides_leave_the_rest_as_it_is():
    before = parsed("--compare.over", "optimizer.name=adam", "--model.options.activation", "relu").training("adam", 0)
    after = override(before, {"model.options.head.units": 8, "optimizer.schedule.name": "cosine"})
    assert after.model.options == {"activation": "relu", "head": {"units": 8}}
    assert after.optimizer.schedule.name == "cosine"
    assert before.model.options == {"activation": "relu"}


def test_values_may_hold_commas_in_brackets():
    assert [read_value(part) for part in split_values('[1, 2], {"a": 3}, x')] == [[1, 2], {"a": 3}, "x"]
