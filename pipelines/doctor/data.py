"""Checks of what is read and written besides MLflow: the image set, and an output folder."""

from typing import Any

from cnnlib.config import DataSettings, DoctorSettings, TrainSettings
from cnnlib.errors import SparkcnnError
from cnnlib.feed.row_groups import read_row_groups
from cnnlib.image_set.contract import COMMIT, ImageSet, open_image_set
from cnnlib.image_set.splits import TRAIN, VAL
from cnnlib.storage.folder import Folder, new_run_id, open_folder, try_writing
from cnnlib.training.preconditions import check_fit
from pipelines.doctor.examination import AskTasks, NotChecked, Problem, on_hosts


def check_image_set(settings: DoctorSettings) -> str:
    """Whether the image set opens, and is enough for a training with the settings."""
    image_set = _opened(settings)
    splits = ", ".join(f"{split.rows:,} {name}" for name, split in image_set.splits.items())
    row_groups = image_set.splits[TRAIN].row_groups
    found = f"{splits}; {len(image_set.classes)} classes; train has {row_groups:,} row groups"
    try:
        check_fit(image_set, _train_settings(settings, image_set))
    except SparkcnnError as error:
        raise Problem(found, error.message) from error
    return found


def check_files(settings: DoctorSettings) -> str:
    """Whether the image set's files are there, and as its dataset.json says."""
    return _read_footers(_known_to_open(settings).folder.uri, settings.data.timeout_s)["found"]


def check_files_from_tasks(ask_tasks: AskTasks, settings: DoctorSettings) -> str:
    """The same, by Spark's tasks: the path may mean another folder on their machines."""
    if not settings.train.workers:
        raise NotChecked("train.workers is 0: the driver alone reads them")
    answers = ask_tasks(_read_footers, _known_to_open(settings).folder.uri, settings.data.timeout_s)
    return f"{answers[0]['found']}, by {on_hosts(answers)}"


def check_output(ask_tasks: AskTasks, settings: DoctorSettings) -> str:
    """Whether files can be written to the output folder, here and by tasks, and whether that is one folder."""
    if settings.output.path is None:
        raise NotChecked("no output.path is given")
    folder = open_folder(settings.output.path)
    # Named like an unfinished commit: what should be left of them, the next ingest removes.
    probe = f"{COMMIT}.{new_run_id()}"
    with try_writing(folder, COMMIT):
        try:
            answers = ask_tasks(_write_probe, folder.uri, probe)
            seen = set(folder.files())
        except NotChecked:
            return "written to from here alone"
        finally:
            _remove(folder, probe)
    for answer in answers:
        if answer["problem"]:
            raise Problem("", f"output.path={folder.uri} cannot be written on {answer['host']} ({answer['problem']})")
        if answer["name"] not in seen:
            raise Problem(
                "",
                f"output.path={folder.uri} is another folder on {answer['host']}; name one that is the same on every "
                "machine",
            )
    return f"written to from here and by {on_hosts(answers)}"


def _opened(settings: DoctorSettings) -> ImageSet:
    if settings.data.path is None:
        raise NotChecked("no data.path is given")
    return open_image_set(settings.data.path)


def _known_to_open(settings: DoctorSettings) -> ImageSet:
    try:
        return _opened(settings)
    except SparkcnnError as error:
        raise NotChecked("the image set does not open, see above") from error


def _train_settings(settings: DoctorSettings, image_set: ImageSet) -> TrainSettings:
    data = DataSettings(**{**settings.data.model_dump(), "path": image_set.folder.uri})
    return TrainSettings.model_validate(settings.sections() | {"data": data})


def _read_footers(path: str, timeout_s: float) -> dict[str, Any]:
    image_set = open_image_set(path)
    files = sum(len({group.path for group in read_row_groups(image_set, split, timeout_s)}) for split in (TRAIN, VAL))
    return {"found": f"{files:,} files of {TRAIN} and {VAL} read"}


def _write_probe(uri: str, probe: str) -> dict[str, Any]:
    folder = open_folder(uri)
    name = f"{probe}{new_run_id()}.tmp"
    try:
        folder.fs.pipe_file(folder.path(name), b"")
    except OSError as error:
        return {"name": name, "problem": error.strerror or str(error)}
    return {"name": name, "problem": ""}


def _remove(folder: Folder, probe: str) -> None:
    for name in folder.files():
        if name.startswith(probe):
            folder.fs.rm_file(folder.path(name))
