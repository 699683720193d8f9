"""Train on workers: one run, equal ranks, a model as from one process, and recovery from SIGKILL."""

import json
import random
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import mlflow
import numpy as np
import psutil
import pytest
from pyspark.sql import SparkSession
from rich.console import Console

from cnnlib.config import DataSettings, FitSettings, ModelSettings, RegisterSettings, TrackingSettings, TrainSettings
from cnnlib.errors import ConfigError, HostError, TrainingError
from cnnlib.image_set.contract import ImageSet
from cnnlib.mnist import read_mnist_file
from cnnlib.sources.idx import parse_idx
from cnnlib.training.batch_statistics import INFERENCE_MODE, TRAINING_MODE
from cnnlib.training.checkpoints import read_checkpoint
from pipelines.spark import progress
from pipelines.spark.progress import Progress
from pipelines.tracking.store import connect
from pipelines.tracking.tags import tag_key
from pipelines.tracking.tracker import LATEST, PROGRESS
from pipelines.train.flow import TrainedModel, train
from tests.spark.conftest import Trained
from tests.spark.probes import TIMEOUT_S, all_gone, eventually
from tests.unit.image_sets import write_image_set
from tests.unit.test_batch_statistics import NETWORK, averages_of, inputs_of

KILLS = 10
# An epoch takes about this long.
MOST_SECONDS_TO_KILL = 1.0
RANK_METRICS = [
    f"rank_{rank}/{name}" for rank in (0, 1) for name in ("images_per_second", "step_seconds", "data_wait_share")
]


def ranks_here() -> list[psutil.Process]:
    """Return the rank processes below this process."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[1:3] == ["-m", "pipelines.train.workers.rank"]:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def mnist_set(folder: Path, train_rows: int, val_rows: int) -> ImageSet:
    """Write an image set: the first images of MNIST's training files as train, the first of its test files as val."""
    kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
    parts = [
        [parse_idx(read_mnist_file(f"{stem}-{kind}.gz"), kind)[:rows] for kind in kinds]
        for stem, rows in (("train", train_rows), ("t10k", val_rows))
    ]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    splits = ["train"] * train_rows + ["val"] * val_rows
    return write_image_set(
        folder,
        images.reshape(-1, 28, 28, 1),
        labels.tolist(),
        splits,
        classes=tuple("0123456789"),
        rows_per_row_group=500,
    )


def on_workers(trained: Trained, folder: Path, **fit: object) -> TrainSettings:
    """Return the settings of `trained` for two workers with half the batch each, and with another store."""
    values = trained.settings.train.model_dump() | {"workers": 2, "worker_batch_size": 16} | fit
    return trained.settings.model_copy(
        update={
            "train": FitSettings(**values),
            "tracking": TrackingSettings(uri=f"sqlite:///{folder}/mlflow.db", experiment="workers"),
        }
    )


def architecture(folder: Path) -> object:
    """Return the layers, loss and optimizer of a .keras file, without the addresses of objects in memory."""
    with zipfile.ZipFile(next(folder.rglob("*.keras"))) as archive:
        return json.loads(
            archive.read("config.json"),
            object_hook=lambda known: {key: known[key] for key in known if key != "shared_object_id"},
        )


@pytest.fixture(scope="module")
def together(
    spark: SparkSession,
    trained: Trained,
    tmp_path_factory: pytest.TempPathFactory,
    new_store: Callable[[Path], str],
) -> tuple[TrainSettings, TrainedModel, str]:
    """(settings, model, output of the driver) of a training on two workers."""
    folder = tmp_path_factory.mktemp("together")
    new_store(folder)
    settings = on_workers(trained, folder)
    with open(folder / "output", "w+") as output, pytest.MonkeyPatch.context() as patch:
        # Print a line at every look.
        patch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
        model = train(spark, settings, Progress(Console(file=output, width=200)))
    return settings, model, (folder / "output").read_text()


def test_one_run_has_every_epoch_of_every_rank_once(together) -> None:
    settings, model, _ = together
    uri = connect(settings.tracking)
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("workers")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_id, run.info.status) == (model.run_id, "FINISHED")
    for metric in ("loss", "val_accuracy", "images_per_second", "step_seconds", "data_wait_share", *RANK_METRICS):
        logged = client.get_metric_history(model.run_id, metric)
        assert [(one.step, one.value) for one in logged] == list(enumerate(model.history[metric], 1)), metric
        assert len(logged) == settings.train.epochs
    of_ranks = [model.history[f"rank_{rank}/images_per_second"] for rank in (0, 1)]
    assert np.sum(of_ranks, axis=0) == pytest.approx(model.history["images_per_second"])


def test_driver_prints_every_epoch_of_rank_0(together) -> None:
    settings, model, output = together
    lines = [line for line in output.splitlines() if line.startswith("epoch ")]
    assert [line.split(":")[0] for line in lines] == [f"epoch {epoch}/3" for epoch in (1, 2, 3)]
    assert f"val_accuracy {model.history['val_accuracy'][-1]:.4f}" in lines[-1]


def test_driver_shows_the_steps_of_rank_0(together, trained: Trained) -> None:
    settings, _, output = together
    title = "train lenet on 2 workers"
    steps = [line for line in output.splitlines() if line.startswith(f"{title}: ") and " steps, epoch " in line]
    done = [int(line.removeprefix(f"{title}: ").split("/")[0]) for line in steps]
    assert done == sorted(done)
    # Both workers together take 32 images per step.
    total = settings.train.epochs * -(-trained.image_set.split("train").rows // 32)
    assert f"{title}: {total}/{total} steps, epoch 3/3: " in steps[-1]


def test_two_workers_learn_as_well_as_one_process(together, trained: Trained) -> None:
    _, model, _ = together
    assert max(model.history["val_accuracy"]) == pytest.approx(max(trained.model.history["val_accuracy"]), abs=0.1)


def test_model_and_checkpoints_show_no_trace_of_the_workers(together, trained: Trained, tmp_path: Path) -> None:
    settings, model, _ = together
    kept = []
    for name, tracking, one in (("alone", trained.tracking, trained.model), ("two", settings.tracking, model)):
        connect(tracking)
        sealed = Path(mlflow.artifacts.download_artifacts("models:/digits@champion", dst_path=str(tmp_path / name)))
        checkpoint = Path(
            mlflow.artifacts.download_artifacts(
                run_id=one.run_id, artifact_path="checkpoints/epoch-0003", dst_path=str(tmp_path / f"{name}-epoch")
            )
        )
        loaded = keras.saving.load_model(checkpoint / "model.keras")
        kept.append(
            {
                "files": sorted(path.relative_to(sealed).as_posix() for path in sealed.rglob("*") if path.is_file()),
                "signature": mlflow.models.get_model_info(str(sealed)).signature.to_dict(),
                "sealed": architecture(sealed),
                "checkpoint": architecture(checkpoint),
                "class": type(loaded),
                "variables": [(variable.path, variable.shape) for variable in loaded.variables],
                "optimizer": [(variable.path, variable.shape) for variable in loaded.optimizer.variables],
                "steps": int(loaded.optimizer.iterations),
            }
        )
    assert kept[0] == kept[1]


def test_no_rank_process_is_left(together) -> None:
    assert ranks_here() == []


@pytest.mark.parametrize(
    ("fit", "kind", "message"),
    [
        ({"workers": 500}, HostError, r"train\.workers=500 exceeds the \d+ tasks that this Spark can run at once"),
        ({"gpus_per_worker": 1}, HostError, r"train\.gpus_per_worker=1, but Spark schedules no GPU to a task"),
        ({"workers": 10**6}, ConfigError, r"train\.workers=1000000 exceeds the \d+ row groups of"),
    ],
    ids=["slots", "GPUs", "row groups"],
)
def test_missing_resources_are_refused_before_a_run(
    spark: SparkSession, trained: Trained, tmp_path: Path, fit: dict, kind: type[Exception], message: str
) -> None:
    settings = on_workers(trained, tmp_path, **fit)
    if kind is HostError and fit.get("workers"):
        small = write_image_set(
            tmp_path / "set", np.zeros((1200, 4, 4, 1), np.uint8), [0, 1] * 600, ["train", "val"] * 600,
            classes=("a", "b"), rows_per_row_group=1,
        )  # fmt: skip
        settings = settings.model_copy(update={"data": DataSettings(path=small.folder.uri)})
    started = time.monotonic()
    with pytest.raises(kind, match=message):
        train(spark, settings)
    assert time.monotonic() - started < 30
    connect(settings.tracking)
    assert mlflow.MlflowClient().search_experiments(filter_string="name = 'workers'") == []


@contextmanager
def killer(settings: TrainSettings, kills: int, killed: list[int]) -> Iterator[None]:
    """Kill a random rank with SIGKILL after each published epoch while the body trains, `kills` times in all.

    Appends to `killed` the epoch that was interrupted.
    """
    stop = threading.Event()
    pick = random.Random(0)

    def work() -> None:
        client = mlflow.MlflowClient(settings.tracking.uri)
        after = 0
        while len(killed) < kills and not stop.wait(0.05):
            experiment = client.get_experiment_by_name(settings.tracking.experiment)
            runs = client.search_runs([experiment.experiment_id]) if experiment else []
            latest = int(runs[0].data.tags.get(tag_key(LATEST), 0)) if runs else 0
            ranks = ranks_here()
            # The first epoch has begun as soon as rank 0 has reported a step.
            reported = json.loads(runs[0].data.tags.get(tag_key(PROGRESS)) or "{}") if runs else {}
            if len(ranks) < 2 or "done" not in reported or latest < after:
                continue
            # This hits any moment of the epoch, or the start of the next one.
            if stop.wait(pick.uniform(0, MOST_SECONDS_TO_KILL)):
                return
            latest = int(client.get_run(runs[0].info.run_id).data.tags.get(tag_key(LATEST), 0))
            try:
                pick.choice(ranks).kill()
            except psutil.NoSuchProcess:
                continue
            psutil.wait_procs(ranks, TIMEOUT_S)
            killed.append(latest + 1)
            after = latest + 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture(scope="module")
def busy_set(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """Enough images for an epoch of about one second, so that kills hit the middle of an epoch."""
    return mnist_set(tmp_path_factory.mktemp("busy") / "set", 8000, 500)


def busy_settings(image_set: ImageSet, folder: Path, **fit: object) -> TrainSettings:
    return TrainSettings(
        data=DataSettings(path=image_set.folder.uri),
        train=FitSettings(**({"workers": 2, "worker_batch_size": 32, "patience": 0} | fit)),
        tracking=TrackingSettings(uri=f"sqlite:///{folder}/mlflow.db", experiment="kills"),
        register=RegisterSettings(),
    )


def test_ten_kills_lose_no_epoch(spark: SparkSession, busy_set: ImageSet, tmp_path: Path) -> None:
    epochs = KILLS + 8  # More than one epoch may finish between two kills.
    settings = busy_settings(busy_set, tmp_path, epochs=epochs, max_restarts=KILLS)
    killed: list[int] = []
    with killer(settings, KILLS, killed):
        model = train(spark, settings)
    assert len(killed) == KILLS, killed
    client = mlflow.MlflowClient(settings.tracking.uri)
    for metric in ("loss", "val_accuracy", *RANK_METRICS):
        logged = client.get_metric_history(model.run_id, metric)
        assert Counter(one.step for one in logged) == Counter(range(1, epochs + 1)), metric
    names = [artifact.path for artifact in client.list_artifacts(model.run_id, "checkpoints")]
    assert names == [f"checkpoints/epoch-{epoch:04d}" for epoch in range(1, epochs + 1)]
    assert {name: len(values) for name, values in model.history.items()} == dict.fromkeys(model.history, epochs)
    assert max(model.history["val_accuracy"]) > 0.9
    assert client.get_run(model.run_id).info.status == "FINISHED"
    assert ranks_here() == []


def test_kill_without_restart_ends_the_job_in_time(spark: SparkSession, busy_set: ImageSet, tmp_path: Path) -> None:
    settings = busy_settings(busy_set, tmp_path, epochs=500, max_restarts=0)
    killed: list[int] = []
    times: list[float] = []

    def note_time() -> None:
        eventually(lambda: killed)
        times.append(time.monotonic())

    watch = threading.Thread(target=note_time)
    watch.start()
    with killer(settings, 1, killed), pytest.raises(TrainingError) as error:
        train(spark, settings)
    watch.join()
    assert time.monotonic() - times[0] < 90
    assert "was killed by SIGKILL, and train.max_restarts=0 is used up" in error.value.message
    run_id = error.value.message.rsplit(" ", 1)[1]
    client = mlflow.MlflowClient(settings.tracking.uri)
    assert client.get_run(run_id).info.status == "FAILED"
    assert all_gone(ranks_here())


def test_averages_of_batch_normalisation_are_those_of_all_images(spark: SparkSession, tmp_path: Path) -> None:
    image_set = mnist_set(tmp_path / "set", 1000, 100)
    settings = busy_settings(image_set, tmp_path, epochs=1)
    settings = settings.model_copy(update={"model": ModelSettings(**NETWORK)})
    trained = train(spark, settings)
    assert all(len(trained.history[name]) == 1 for name in (TRAINING_MODE, INFERENCE_MODE))
    client = mlflow.MlflowClient(settings.tracking.uri)
    kept = client.download_artifacts(trained.run_id, "checkpoints/epoch-0001", str(tmp_path))
    model, _ = read_checkpoint(Path(kept))
    seen = inputs_of(model, "of_images", image_set)
    mean, variance = averages_of(model, "of_images")
    assert mean == pytest.approx(seen.mean(), rel=1e-4)
    assert variance == pytest.approx(seen.var(), rel=1e-4)


def test_two_workers_of_64_learn_as_well_as_one_of_128(spark: SparkSession, tmp_path: Path) -> None:
    image_set = mnist_set(tmp_path / "set", 15_000, 5000)
    reached = []
    for workers, batch in ((0, 128), (2, 64)):
        # Compare the best of eight epochs, which is registered. A single epoch can differ by one percentage point.
        settings = busy_settings(image_set, tmp_path, epochs=8, workers=workers, worker_batch_size=batch)
        reached.append(max(train(spark, settings).history["val_accuracy"]))
    assert reached[1] == pytest.approx(reached[0], abs=0.003)
