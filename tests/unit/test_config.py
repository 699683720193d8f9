"""The settings classes are explained, frozen and closed. The YAML files in conf/ are settings of their jobs."""

import shlex
from pathlib import Path
from typing import Annotated

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from cnnlib import config
from cnnlib.config import (
    DemoSettings,
    FitSettings,
    ModelSettings,
    Settings,
    TrainSettings,
    flatten,
    flatten_values,
)
from cnnlib.config.settings import MAY_DIFFER_ON_RESUME, SAME_IN_ALL_TRAININGS, fields_of, names_marked
from jobs.catalogue import JOBS
from jobs.settings import parse_settings

CONF = Path(__file__).resolve().parents[2] / "conf"


FIELDS = {f"{job.name}:{name}": field for job in JOBS.values() for name, field in fields_of(job.settings).items()}
CLASSES = [kind for kind in vars(config).values() if isinstance(kind, type) and issubclass(kind, Settings)]


@pytest.mark.parametrize("name", FIELDS)
def test_setting_is_explained(name):
    assert len(FIELDS[name].description or "") >= 8


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_section_is_explained(kind):
    # An inherited docstring would not do, because --help shows it as the heading of the section.
    assert kind.__dict__.get("__doc__")


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_section_is_frozen_and_closed(kind):
    assert kind.model_config["frozen"] is True
    assert kind.model_config["extra"] == "forbid"


def test_setting_cannot_be_changed():
    settings = FitSettings(epochs=3)
    with pytest.raises(ValidationError):
        settings.epochs = 4
    assert settings.epochs == 3


def test_unknown_setting_is_refused():
    with pytest.raises(ValidationError, match="epoch"):
        FitSettings(epoch=3)


@pytest.mark.parametrize("name", FIELDS)
def test_default_is_a_value_that_the_setting_takes(name):
    field = FIELDS[name]
    if not field.is_required():
        kind = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
        assert TypeAdapter(kind).validate_python(field.default, strict=True) == field.default


@pytest.mark.parametrize(
    ("section", "values"),
    [
        (FitSettings, {"epochs": 0}),
        (FitSettings, {"worker_batch_size": 0}),
        (FitSettings, {"seed": -1}),
        (FitSettings, {"patience": -1}),
        (config.DataSettings, {"shuffle_mb": 0}),
        (config.DataSettings, {"timeout_s": 0}),
        (config.ImageSettings, {"height": 0}),
        (config.ImageSettings, {"channels": 2}),
        (config.SplitSettings, {"val_fraction": 1.0}),
        (config.SplitSettings, {"test_fraction": -0.1}),
        (config.RejectsSettings, {"max_fraction": 1.1}),
        (config.OptimizerSettings, {"learning_rate": 0}),
        (config.OptimizerSettings, {"learning_rate": float("inf")}),
        (config.PredictionSettings, {"batch_size": 0}),
    ],
    ids=str,
)
def test_value_out_of_range_is_refused(section, values):
    (name,) = values
    with pytest.raises(ValidationError, match=name):
        section(**values)


def test_fractions_that_leave_no_train_images_are_refused():
    with pytest.raises(ValidationError, match="fraction"):
        config.SplitSettings(val_fraction=0.6, test_fraction=0.6)


# --- flatten


def test_flatten_gives_every_setting_under_its_dotted_name():
    flat = flatten(TrainSettings(data={"path": "set"}))
    assert set(flat) == set(fields_of(TrainSettings))
    assert (flat["data.path"], flat["train.epochs"], flat["register.name"]) == ("set", 3, None)


def test_flatten_names_each_option():
    settings = TrainSettings(
        data={"path": "set"}, model=ModelSettings(options={"activation": "tanh", "deep": {"a": 1}})
    )
    flat = flatten(settings)
    assert {name: value for name, value in flat.items() if name.startswith("model.")} == {
        "model.name": "lenet",
        "model.weights": None,
        "model.options.activation": "tanh",
        "model.options.deep.a": 1,
    }


def test_flatten_keeps_an_empty_section_of_options():
    assert flatten(ModelSettings()) == {"name": "lenet", "weights": None, "options": {}}


# --- marks


def test_settings_that_may_differ_when_a_run_is_resumed():
    marked = [names_marked(job.settings, MAY_DIFFER_ON_RESUME) for job in (JOBS["train"], JOBS["tune"])]
    assert frozenset.union(*marked) == {
        *("train.resume", "train.max_restarts", "train.keep_last", "tracking.uri", "tune.parallel"),
        *("register.name", "register.alias"),
    }


def test_settings_that_compare_and_tune_never_vary():
    assert names_marked(TrainSettings, SAME_IN_ALL_TRAININGS) == {
        *("data.path", "train.seed", "train.monitor", "train.direction", "train.deterministic", "train.resume"),
        *("train.find_rate", "tracking.uri", "tracking.experiment", "register.name", "register.alias"),
    }


# --- conf/*.yaml


def test_every_job_has_its_file():
    assert sorted(path.stem for path in CONF.glob("*.yaml")) == sorted(JOBS)


def test_demo_file_is_whole():
    settings = parse_settings("demo", DemoSettings, ["--config", str(CONF / "demo.yaml")])
    assert (settings.ingest.source.format, settings.train.train.epochs, settings.min_test_accuracy) == (
        "mnist",
        3,
        0.985,
    )
    # Each stage reads what the stage before it wrote.
    assert settings.ingest.output.path == settings.train.data.path == settings.score.input.path
    assert settings.score.model == f"models:/{settings.train.register.name}@{settings.train.register.alias}"


RECIPES = {"mnist_lenet": 0.991, "mnist_small": 0.996, "fashion_lenet": 0.905, "fashion_small": 0.93}


@pytest.mark.parametrize("recipe", sorted(path.stem for path in (CONF / "recipes").glob("*.yaml")))
def test_recipe_is_a_whole_demo_with_its_own_limit(recipe):
    settings = parse_settings("demo", DemoSettings, ["--config", str(CONF / "recipes" / f"{recipe}.yaml")])
    assert settings.min_test_accuracy == RECIPES[recipe]
    assert settings.ingest.output.path == settings.train.data.path == settings.score.input.path
    assert settings.score.model == f"models:/{settings.train.register.name}@{settings.train.register.alias}"
    assert (settings.train.train.monitor.startswith("val_"), settings.score.input.split) == (True, "test")


@pytest.mark.parametrize("job", sorted(JOBS.keys() - {"demo"}))
def test_file_parses_with_the_options_of_its_first_line(job):
    path = CONF / f"{job}.yaml"
    text = path.read_text()
    command, name, *arguments = shlex.split(text.splitlines()[0].removeprefix("#"))
    assert (command, name, arguments[:2]) == ("sparkcnn", job, ["--config", f"conf/{job}.yaml"])
    settings = parse_settings(job, JOBS[job].settings, ["--config", str(path), *arguments[2:]])
    flat, given = flatten(settings), flatten_values(yaml.safe_load(text))
    given |= dict(zip((option.removeprefix("--") for option in arguments[2::2]), arguments[3::2], strict=True))
    assert {name: flat[name] for name in given} == given


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: path.stem)
def test_file_repeats_no_default(path):
    job = "demo" if path.parent.name == "recipes" else path.stem
    fields = fields_of(JOBS[job].settings)
    given = flatten_values(yaml.safe_load(path.read_text()))
    repeated = {name: value for name, value in given.items() if name in fields and value == fields[name].default}
    assert repeated == {}
