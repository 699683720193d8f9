"""The plan of a model: its message, its step, and what comes of a run."""

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from cnnlib.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

from cnnlib.config import PlanSettings  # noqa: E402
from cnnlib.errors import ConfigError, ImageSetError  # noqa: E402
from jobs import plan as job  # noqa: E402
from pipelines.doctor.plan import plan_scaling  # noqa: E402
from tests.unit.image_sets import write_image_set  # noqa: E402

# 5·5·20+20, 5·5·20·50+50, 4·4·50·500+500, 500·10+10
LENET_WEIGHTS = 520 + 25_050 + 400_500 + 5_010


@pytest.fixture
def store(tmp_path, new_store) -> str:
    return new_store(tmp_path)


@pytest.fixture
def image_set(tmp_path):
    images = np.zeros((60, 20, 24, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(60)
    splits = ["train"] * 40 + ["val"] * 20
    return write_image_set(tmp_path / "set", images, [0, 1, 2] * 20, splits, classes=("a", "b", "c"))


def run_of(store: str, image_set, step_seconds=(0.5, 0.03, 0.05, 0.04), **params: str) -> str:
    """A run as train leaves it."""
    client = MlflowClient(store)
    run_id = client.create_run(client.create_experiment("plan")).info.run_id
    logged = {
        "model.name": "lenet",
        "model.options.activation": "tanh",
        "train.worker_batch_size": "64",
        "train.workers": "0",
        "data.path": image_set.folder.uri,
    } | params
    client.log_batch(
        run_id,
        metrics=[Metric("step_seconds", value, 0, epoch) for epoch, value in enumerate(step_seconds, start=1)],
        params=[Param(name, value) for name, value in logged.items()],
    )
    return run_id


def test_message_is_all_gradients_of_lenet_in_float32():
    plan = plan_scaling(PlanSettings(step_seconds=0.02))
    assert (plan.parameters, plan.message_bytes) == (LENET_WEIGHTS, 4 * LENET_WEIGHTS)
    assert [scaling.workers for scaling in plan.scalings] == [16, 64, 256]
    # 30 * 50 us + 30/16 * 1,724,320 B / 1.25 GB/s
    assert plan.scalings[0].all_reduce_seconds == pytest.approx(0.0015 + 0.00258648)
    assert plan.scalings[0].efficiency == pytest.approx(0.02 / (0.02 + 0.0015 + 0.00258648))


def test_size_and_classes_come_from_the_image_set(image_set):
    plan = plan_scaling(PlanSettings(step_seconds=0.02, data={"path": image_set.folder.uri}))
    assert (plan.image_shape, plan.classes) == ((20, 24, 3), 3)


def test_step_is_measured_if_not_given():
    plan = plan_scaling(PlanSettings(worker_batch_size=8, measured_steps=2))
    assert 0 < plan.step_seconds < 60
    assert plan.source == "median of 2 steps measured here"


def test_model_images_batch_and_step_come_from_the_run(store, image_set):
    run_id = run_of(store, image_set)
    plan = plan_scaling(PlanSettings(run=run_id, tracking={"uri": store}))
    assert plan.model.options == {"activation": "tanh"}
    assert (plan.image_shape, plan.worker_batch_size) == ((20, 24, 3), 64)
    # The first epoch's 0.5 s do not count.
    assert plan.step_seconds == 0.04
    assert run_id in plan.source


def test_single_epoch_counts(store, image_set):
    plan = plan_scaling(PlanSettings(run=run_of(store, image_set, step_seconds=[0.5]), tracking={"uri": store}))
    assert plan.step_seconds == 0.5


def test_image_set_that_was_moved_can_be_named(store, image_set):
    run_id = run_of(store, image_set, **{"data.path": "/gone"})
    with pytest.raises(ImageSetError, match="/gone is not an image set"):
        plan_scaling(PlanSettings(run=run_id, tracking={"uri": store}))
    settings = PlanSettings(run=run_id, tracking={"uri": store}, data={"path": image_set.folder.uri})
    assert plan_scaling(settings).classes == 3


def test_run_of_several_workers_is_refused(store, image_set):
    run_id = run_of(store, image_set, **{"train.workers": "2"})
    with pytest.raises(ConfigError, match=r"was trained with train\.workers=2; name a run of one worker"):
        plan_scaling(PlanSettings(run=run_id, tracking={"uri": store}))


def test_run_of_something_else_is_refused(store, image_set):
    with pytest.raises(ConfigError, match="has no metric step_seconds"):
        plan_scaling(PlanSettings(run=run_of(store, image_set, step_seconds=[]), tracking={"uri": store}))


def test_unknown_run_is_refused(store, image_set):
    run_of(store, image_set)
    with pytest.raises(ConfigError, match="run=nobody is not a run of sqlite"):
        plan_scaling(PlanSettings(run="nobody", tracking={"uri": store}))


def test_missing_store_is_not_created(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        plan_scaling(PlanSettings(run="abc", tracking={"uri": f"sqlite:///{tmp_path}/mlflow.db"}))
    assert list(tmp_path.iterdir()) == []


# --- the job


def test_table_has_a_row_for_each_number_of_workers(capsys):
    assert job.main(["--workers", "16,48,256", "--step_seconds", "0.02"]) == 0
    shown = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if line.count("│") == 7]
    assert rows == [
        ["16", "4.1 ms", "85,027", "83%", "100%", "91% (92, 93, 58%)"],
        ["48", "7.4 ms", "224,222", "73%", "100%", ""],
        ["256", "28.2 ms", "679,156", "41%", "57%", "88% (86, 90, 53%)"],
    ]
    assert "Thakur, Rabenseifner and Gropp 2005" in shown


def test_refusal_is_one_line(capsys):
    assert job.main(["--image.height", "8", "--step_seconds", "0.02"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("sparkcnn plan: model.name=lenet needs images of at least 16 x 16 pixels")
    assert captured.err.count("\n") == 1
