"""What a comparison and a study leave: the settings of their run, and files in it and in a folder of the user's."""

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from cnnlib.config import CompareSettings, TuneSettings, flatten
from cnnlib.errors import ConfigError, first_line
from pipelines.tracking.tracker import Tracker


def make_results_folder(path: str) -> Path:
    """Make the folder where it is not there, and give its absolute path.

    Raises ConfigError where it cannot be written: better before a long job than at its end.
    """
    folder = Path(path).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"output.path={path} cannot be made ({first_line(error)}); name another folder") from error
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"output.path={path} cannot be written; name another folder")
    return folder


def keep_results(files: Mapping[str, bytes], run: Tracker, folder: Path) -> None:
    """Write files into a folder, replacing those of the same names, and log them as artifacts of a run."""
    with TemporaryDirectory(prefix="sparkcnn-results-") as temporary:
        for name, content in files.items():
            (Path(temporary) / name).write_bytes(content)
            (folder / name).write_bytes(content)
        run.log_files(Path(temporary))


def described_search(settings: CompareSettings | TuneSettings, job: str, uri: str) -> dict[str, object]:
    """What the run of a comparison or a study logs: not where its files go, nor how it goes on."""
    left_out = (f"{job}.resume", "train.resume", "output.path")
    return {name: value for name, value in flatten(settings).items() if name not in left_out} | {"tracking.uri": uri}
