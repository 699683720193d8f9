"""Checks of the data that is read and written, except in MLflow: the image set, and an output folder."""

from typing import TYPE_CHECKING, Any

from cnnlib.config import DataSettings, DoctorSettings, TrainSettings
from cnnlib.errors import SparkcnnError
from pipelines.doctor.examination import AskTasks, NotChecked, Problem, on_hosts

if TYPE_CHECKING:
    from cnnlib.image_set.contract import ImageSet
    from cnnlib.storage.folder import Folder


def check_image_set(settings: DoctorSettings) -> str:
    """Check that the image set opens, and that it is large enough for a training with these settings."""
    from cnnlib.image_set.splits import TRAIN
    from cnnlib.training.preconditions import check_fit

    image_set = _open(settings)
    splits = ", ".join(f"{split.rows:,} {name}" for name, split in image_set.splits.items())
    row_groups = image_set.splits[TRAIN].row_groups
    found = f"{splits}; {len(image_set.classes)} classes; train has {row_groups:,} row groups"
    try:
        check_fit(image_set, _train_settings(settings, image_set))
    except SparkcnnError as error:
        raise Problem(found, error.message) from error
    return found


def check_files(settings: DoctorSettings) -> str:
    """Check that the files of the image set exist, and that they are as dataset.json says."""
    return _read_footers(_open_checked(settings).folder.uri, settings.data.timeout_s)["found"]


def check_files_from_tasks(ask_tasks: AskTasks, settings: DoctorSettings) -> str:
    """Check the same in Spark tasks, because the path may name another folder on their machines."""
    if not settings.train.workers:
        raise NotChecked("train.workers=0, so only the driver reads them")
    answers = ask_tasks(_read_footers, _open_checked(settings).folder.uri, settings.data.timeout_s)
    return f"{answers[0]['found']}, by {on_hosts(answers)}"


def check_output(ask_tasks: AskTasks, settings: DoctorSettings) -> str:
    """Check that the driver and the tasks can write to the output folder, and that it is the same folder for all."""
    from cnnlib.image_set.contract import COMMIT
    from cnnlib.storage.folder import new_run_id, open_folder, try_writing

    if settings.output.path is None:
        raise NotChecked("no output.path is given")
    folder = open_folder(settings.output.path)
    # The name is that of an unfinished commit, so the next ingest removes a file that stays behind.
    probe = f"{COMMIT}.{new_run_id()}"
    with try_writing(folder, COMMIT):
        try:
            answers = ask_tasks(_write_probe, folder.uri, probe)
            seen = set(folder.files())
        except NotChecked:
            return "written to from here only"
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


def _open(settings: DoctorSettings) -> "ImageSet":
    from cnnlib.image_set.contract import open_image_set

    if settings.data.path is None:
        raise NotChecked("no data.path is given")
    return open_image_set(settings.data.path)


def _open_checked(settings: DoctorSettings) -> "ImageSet":
    """Open the image set again. If that fails, `check_image_set` has said so already."""
    try:
        return _open(settings)
    except SparkcnnError as error:
        raise NotChecked("the image set does not open, see above") from error


def _train_settings(settings: DoctorSettings, image_set: "ImageSet") -> TrainSettings:
    data = DataSettings(**{**settings.data.model_dump(), "path": image_set.folder.uri})
    return TrainSettings.model_validate(settings.sections() | {"data": data})


def _read_footers(path: str, timeout_s: float) -> dict[str, Any]:
    from cnnlib.feed.row_groups import list_row_groups
    from cnnlib.image_set.contract import open_image_set
    from cnnlib.image_set.splits import TRAIN, VAL

    image_set = open_image_set(path)
    files = sum(len({group.path for group in list_row_groups(image_set, split, timeout_s)}) for split in (TRAIN, VAL))
    return {"found": f"{files:,} files of {TRAIN} and {VAL} read"}


def _write_probe(uri: str, probe: str) -> dict[str, Any]:
    from cnnlib.storage.folder import new_run_id, open_folder

    folder = open_folder(uri)
    name = f"{probe}{new_run_id()}.tmp"
    try:
        folder.fs.pipe_file(folder.path(name), b"")
    except OSError as error:
        return {"name": name, "problem": error.strerror or str(error)}
    return {"name": name, "problem": ""}


def _remove(folder: "Folder", probe: str) -> None:
    for name in folder.files():
        if name.startswith(probe):
            folder.fs.rm_file(folder.path(name))
