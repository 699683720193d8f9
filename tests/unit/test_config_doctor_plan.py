"""The settings of doctor and plan: numbers of workers, and settings that exclude each other."""

import pytest

from cnnlib.config import DoctorSettings, PlanSettings
from cnnlib.errors import ConfigError
from jobs.settings import parse_settings


@pytest.mark.parametrize(
    ("workers", "counts"),
    [
        ("16,64,256", (16, 64, 256)),
        ("16, 64 ,256", (16, 64, 256)),
        ("8", (8,)),
        ("256,16,256", (256, 16)),
        ("1", (1,)),
    ],
)
def test_numbers_of_workers(workers, counts):
    assert parse_settings("plan", PlanSettings, ["--workers", workers]).worker_counts == counts


def test_one_number_in_yaml_needs_no_quotes(tmp_path):
    (tmp_path / "plan.yaml").write_text("workers: 16\n")
    settings = parse_settings("plan", PlanSettings, ["--config", str(tmp_path / "plan.yaml")])
    assert settings.worker_counts == (16,)


@pytest.mark.parametrize(
    "workers", ["", ",", "16,", "16,,64", "0", "16,0", "-4", "1.5", "16;64", "many", "16 64", "1e3"]
)
def test_wrong_number_of_workers_is_one_line(workers):
    with pytest.raises(ConfigError) as error:
        parse_settings("plan", PlanSettings, [f"--workers={workers}"])
    assert error.value.message.startswith("workers")
    assert "\n" not in error.value.message


def test_example_is_given():
    with pytest.raises(ConfigError, match=r"^workers: .* e\.g\. 16,64,256, received 16,x$"):
        parse_settings("plan", PlanSettings, ["--workers", "16,x"])


def test_run_and_step_seconds_together_are_refused():
    with pytest.raises(ConfigError) as error:
        parse_settings("plan", PlanSettings, ["--run", "abc", "--step_seconds", "0.02"])
    assert error.value.message == "run and step_seconds both give the time of a step; take one of them"


def test_doctor_takes_a_command_line_of_train():
    arguments = ["--data.path", "set", "--train.epochs", "9", "--train.workers", "4", "--register.name", "digits"]
    settings = parse_settings("doctor", DoctorSettings, arguments)
    assert (settings.data.path, settings.train.workers, settings.register.name) == ("set", 4, "digits")


def test_doctor_needs_nothing():
    settings = parse_settings("doctor", DoctorSettings, [])
    assert (settings.data.path, settings.output.path, settings.train.workers) == (None, None, 0)


def test_contradiction_does_not_quote_the_whole_section():
    with pytest.raises(ConfigError) as error:
        parse_settings("doctor", DoctorSettings, ["--train.gpus_per_worker", "1"])
    assert error.value.message == (
        "train: gpus_per_worker=1 needs workers of 1 or more, because Spark assigns GPUs to its tasks"
    )
