"""The MLflow store, where runs and models are kept: which it is, and whether it answers."""

import logging
import os
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from cnnlib.config import StoreSettings
from cnnlib.errors import TrackingError, first_line

STORE_FILE = "mlflow.db"
CONNECT_SECONDS = 10
SQLITE = "sqlite:///"
DATABRICKS = "databricks"

# What MLflow would tell between two lines of progress: each of some fifty migrations of a new SQLite store, that it
# validates an example, what becomes of each trial of a study, and that a virtual environment made by uv has no pip.
_LOG_LEVELS = {
    "alembic": logging.WARNING,
    "mlflow.store.db.utils": logging.WARNING,
    "mlflow.pyfunc": logging.WARNING,
    "mlflow.pyspark.optuna": logging.WARNING,
    "optuna": logging.WARNING,
    "mlflow.utils.environment": logging.ERROR,
}


def connect(settings: StoreSettings) -> str:
    """Point MLflow at the tracking store of the settings, and give its URI.

    That is `tracking.uri`, else MLFLOW_TRACKING_URI, else the workspace on Databricks, else SQLite in the working
    folder. Raises TrackingError where a server does not answer, or a database or folder is no store of MLflow's.
    """
    uri = reach_store(settings)
    if not is_server(uri) and uri != DATABRICKS:
        _open_store(uri)
    use_store(uri)
    return uri


def reach_store(settings: StoreSettings) -> str:
    """Find out whether the store of the settings answers, and give its URI; nothing is made or changed.

    Raises TrackingError, see `connect`.
    """
    uri = settings.uri or os.environ.get("MLFLOW_TRACKING_URI") or _default_uri()
    if is_server(uri):
        try:
            # Any answer will do: a proxy in front of the server may ask for a login that MLflow has.
            requests.get(f"{uri.rstrip('/')}/health", timeout=CONNECT_SECONDS)
        except requests.RequestException as error:
            raise TrackingError(
                f"tracking.uri={uri} does not answer ({type(error).__name__}); start the MLflow server, "
                "or mend the address"
            ) from error
    if uri.startswith(SQLITE):
        folder = sqlite_file(uri).parent
        if sqlite_file(uri).is_dir():
            raise TrackingError(f"tracking.uri={uri} cannot be used: {sqlite_file(uri)} is a folder; name a file in it")
        if not os.access(folder, os.W_OK):
            # MLflow would try for minutes.
            raise TrackingError(f"tracking.uri={uri} cannot be used: {folder} is no folder that can be written")
        # Ranks of a training have working folders of their own.
        uri = f"{SQLITE}{sqlite_file(uri)}"
    return uri


def use_store(uri: str) -> None:
    """Point MLflow at a store that was found to answer, and keep it quiet."""
    quieten()
    mlflow.set_tracking_uri(uri)


def quieten() -> None:
    """Have MLflow say less."""
    for name, level in _LOG_LEVELS.items():
        logging.getLogger(name).setLevel(level)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def examine_store(settings: StoreSettings) -> tuple[str, str]:
    """The store's URI, and what it has, in words. Nothing is made or changed, and no run is written.

    Raises TrackingError where it does not answer, or cannot be written to as far as that can be told.
    """
    uri = reach_store(settings)
    if uri.startswith(SQLITE):
        file = sqlite_file(uri)
        if not file.exists():
            return uri, "not there yet; a training makes it"
        if not os.access(file, os.W_OK):
            raise TrackingError(f"tracking.uri={uri} cannot be written; change the rights of {file}")
    quieten()
    try:
        experiments = MlflowClient(uri).search_experiments()
    except MlflowException as error:
        raise TrackingError(f"tracking.uri={uri} cannot be used: {first_line(error)}") from error
    return uri, f"answers; {len(experiments)} experiment{'' if len(experiments) == 1 else 's'}"


def _open_store(uri: str) -> None:
    """Make the store where there is none yet, without a word."""
    # MLflow 2 sets up logging anew at this moment, so a level set before would not hold; MLflow 3 leaves it be.
    earlier = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        MlflowClient(uri).search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError, ImportError, OSError, ValueError) as error:
        # A database whose driver is not installed, say, or a URI that is none.
        raise TrackingError(f"tracking.uri={uri} cannot be used: {first_line(error)}") from error
    finally:
        logging.disable(earlier)


def _default_uri() -> str:
    if "DATABRICKS_RUNTIME_VERSION" in os.environ:
        return DATABRICKS
    return f"{SQLITE}{Path.cwd() / STORE_FILE}"


def is_server(uri: str) -> bool:
    """Whether a store is a server, rather than files. Raises TrackingError for what is no URI."""
    try:
        return urlsplit(uri).scheme in ("http", "https")
    except ValueError as error:
        raise TrackingError(f"tracking.uri={uri} is no URI: {error}") from error


def sqlite_file(uri: str) -> Path:
    """The file of a SQLite store."""
    return Path(uri.removeprefix(SQLITE)).absolute()
