"""The settings of tune, and the ranking and the table of trials."""

import pytest
import yaml

from cnnlib.config import Distribution, TrainSettings, TuneSettings
from cnnlib.errors import ConfigError
from cnnlib.tuning.trials import TrialOutcome, best_yaml, ranked, trial_rows
from jobs.settings import parse_settings
from pipelines.tune.objective import DEVICES, sees_only

SET = ["--data.path", "set"]


def parsed(*arguments: str) -> TuneSettings:
    return parse_settings("tune", TuneSettings, [*SET, *arguments])


def of(name: str, text: str) -> list[str]:
    return [f"--tune.space.{name}", text]


# --- the space


def test_every_kind_of_distribution_is_read():
    settings = parsed(
        *of("optimizer.learning_rate", "loguniform(1e-4,1e-1)"),
        *of("optimizer.momentum", "uniform(0.5, 0.99)"),
        *of("optimizer.name", "choice(sgd,adam)"),
        *of("train.worker_batch_size", "logint(16,256)"),
        *of("model.options.head.units", "int(8,64)"),
        *of("optimizer.clip_norm", "choice(null,1,2.5)"),
    )
    assert settings.space == {
        "optimizer.learning_rate": Distribution("loguniform", (1e-4, 0.1)),
        "optimizer.momentum": Distribution("uniform", (0.5, 0.99)),
        "optimizer.name": Distribution("choice", ("sgd", "adam")),
        "train.worker_batch_size": Distribution("logint", (16, 256)),
        "model.options.head.units": Distribution("int", (8, 64)),
        "optimizer.clip_norm": Distribution("choice", (None, 1, 2.5)),
    }


@pytest.mark.parametrize("written", ["{optimizer: {name: 'choice(sgd,adam)'}}", "{optimizer.name: 'choice(sgd,adam)'}"])
def test_space_in_a_file_may_nest_or_dot_names(written, tmp_path):
    path = tmp_path / "tune.yaml"
    path.write_text(f"tune: {{space: {written}}}")
    settings = parsed(
        "--config", str(path), *of("train.epochs", "int(1,3)"), *of("optimizer.momentum", "uniform(0.1,0.9)")
    )
    assert set(settings.space) == {"optimizer.name", "train.epochs", "optimizer.momentum"}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("optimizer.momentum", "0.9", "tune.space.optimizer.momentum=0.9 is not a distribution; write uniform"),
        ("optimizer.momentum", "normal(0,1)", "is not a distribution"),
        ("optimizer.momentum", "uniform(0.9,0.5)", "needs a lowest value that is below the highest"),
        ("optimizer.momentum", "uniform(0.9)", "needs two numbers"),
        ("optimizer.momentum", "uniform(low,high)", "needs two numbers"),
        ("optimizer.learning_rate", "loguniform(0,1)", "needs a lowest value above 0"),
        ("train.epochs", "int(1,2.5)", "needs two whole numbers"),
        ("optimizer.name", "choice(adam,adam)", "needs different"),
        ("optimizer.name", "choice()", "needs different"),
        ("model.options.units", "choice([1],[2])", "needs different numbers, words"),
        (
            "optimizer.nam",
            "choice(adam,sgd)",
            "optimizer.nam is not a setting of train; did you mean optimizer.name?",
        ),
        ("optimizer.name", "choice(adam,adm)", "optimizer.name=adm is not valid"),
        ("train.epochs", "int(0,5)", "train.epochs=0 is not valid"),
        ("train.seed", "int(0,5)", "train.seed must be the same in all trainings"),
        ("train.workers", "int(1,2)", "set tune.parallel instead"),
        ("train.worker_batch_size", "uniform(16,64)", "for whole numbers take int(LOW,HIGH) or logint(LOW,HIGH)"),
    ],
)
def test_invalid_space_is_one_line(name, text, says):
    with pytest.raises(ConfigError, match="^[^\n]*$") as caught:
        parsed(*of(name, text))
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "tune.space names no setting"),
        ([*of("optimizer.name", "choice(adam,sgd)"), "--train.workers", "2"], "a trial trains in one Spark task"),
        ([*of("optimizer.name", "choice(adam,sgd)"), "--train.resume", "auto"], "train.resume is only for a single"),
    ],
)
def test_settings_that_make_no_study_are_an_error(arguments, says):
    with pytest.raises(ConfigError, match=says):
        parsed(*arguments)


# --- trials

TRIALS = [
    TrialOutcome(0, "a", "pruned", 0.9, 1, 1.0, {"x": 1}),
    TrialOutcome(1, "b", "failed", None, 0, 1.0, {"x": 2, "y": "z"}, "ConfigError: no such thing"),
    TrialOutcome(2, "c", "complete", 0.5, 3, 1.0, {"x": 3}),
    TrialOutcome(3, "d", "complete", 0.7, 3, 1.26, {"x": 4}),
]


@pytest.mark.parametrize(("direction", "order"), [("max", [3, 2, 0, 1]), ("min", [2, 3, 0, 1])])
def test_complete_trial_ranks_before_better_pruned_one(direction, order):
    assert [trial.number for trial in ranked(TRIALS, direction)] == order


def test_trial_rows_have_every_drawn_setting_and_the_error():
    rows = trial_rows(TRIALS, "val_accuracy")
    assert rows[3] == {
        "trial": 3,
        "state": "complete",
        "val_accuracy": 0.7,
        "epochs": 3,
        "seconds": 1.3,
        "x": 4,
        "y": "",
        "run_id": "d",
        "error": "",
    }
    assert (rows[1]["val_accuracy"], rows[1]["y"], rows[1]["error"]) == ("", "z", "ConfigError: no such thing")


def test_best_settings_are_a_file_that_train_takes(tmp_path):
    settings = parsed(
        *of("optimizer.name", "choice(adam,sgd)"), "--model.options.activation", "elu", "--train.epochs", "7"
    )
    best = settings.varied({"optimizer.name": "sgd", "optimizer.learning_rate": 1e-5, "train.worker_batch_size": 24})
    path = tmp_path / "best.yaml"
    path.write_text(best_yaml(best, TRIALS[3], "val_accuracy"))
    assert parse_settings("train", TrainSettings, ["--config", str(path)]) == best
    assert "register" not in yaml.safe_load(path.read_text())


@pytest.mark.parametrize(
    ("began_with", "assigned", "fits"),
    [(None, "", True), (None, "1", False), ("", "", True), ("", "1", False), ("1", "1", True), ("1", "", False)],
)
def test_worker_takes_trials_that_fit_its_devices(began_with, assigned, fits, monkeypatch):
    """`began_with` None is a worker without the variable, such as one that has scored. It sees no GPU here."""
    if began_with is None:
        monkeypatch.delenv(DEVICES, raising=False)
    else:
        monkeypatch.setenv(DEVICES, began_with)
    assert sees_only(assigned) is fits
