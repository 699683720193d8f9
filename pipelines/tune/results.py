"""Keep the results of a comparison or a study: as files in a folder, and as artifacts of its MLflow run."""

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from cnnlib.config import CompareSettings, TuneSettings, flatten
from cnnlib.config.settings import NOT_LOGGED
from cnnlib.errors import ConfigError, first_line
from pipelines.tracking.tracker import Tracker


def make_results_folder(path: str) -> Path:
    """Create the folder if it does not exist, and return its absolute path.

    Raises ConfigError if it cannot be written. This is checked before the job, which takes long.
    """
    folder = Path(path).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"output.path={path} cannot be created ({first_line(error)}); name another folder") from error
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"output.path={path} cannot be written; name another folder")
    return folder


def keep_results(files: Mapping[str, bytes], run: Tracker, folder: Path) -> None:
    """Write files into a folder and log them as artifacts of a run. Files of the same names are replaced."""
    with TemporaryDirectory(prefix="sparkcnn-results-") as temporary:
        for name, content in files.items():
            (Path(temporary) / name).write_bytes(content)
            (folder / name).write_bytes(content)
        run.log_files(Path(temporary))


def logged_settings(settings: CompareSettings | TuneSettings, uri: str) -> dict[str, object]:
    """Return the settings that the run of a comparison or a study logs: all except those marked NOT_LOGGED."""
    return flatten(settings, without=NOT_LOGGED) | {"tracking.uri": uri}
