"""The MLflow store, which keeps runs and models: find it, and check that it answers."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from sqlalchemy.exc import SQLAlchemyError

from cnnlib.config import StoreSettings
from cnnlib.errors import TrackingError, first_line

STORE_FILE = "mlflow.db"
CONNECT_SECONDS = 10
SQLITE = "sqlite:///"
DATABRICKS = "databricks"

# Loggers that would write between two lines of progress: about fifty migrations of a new SQLite store, the check of an
# input example, the result of each trial of a study, and that a virtual environment made by uv has no pip.
_LOG_LEVELS = {
    "alembic": logging.WARNING,
    "mlflow.store.db.utils": logging.WARNING,
    "mlflow.pyfunc": logging.WARNING,
    "mlflow.pyspark.optuna": logging.WARNING,
    "optuna": logging.WARNING,
    "mlflow.utils.environment": logging.ERROR,
}


@contextmanager
def as_tracking_error(uri: str, advice: str = "") -> Iterator[None]:
    """Turn an MlflowException of the body into a TrackingError of one line; `advice` is appended to it."""
    try:
        yield
    except MlflowException as error:
        raise TrackingError(f"tracking.uri={uri} cannot be used: {first_line(error)}{advice}") from error


def connect(settings: StoreSettings) -> str:
    """Point MLflow at the tracking store of the settings, and return its URI.

    The store is `tracking.uri`, else MLFLOW_TRACKING_URI, else the workspace on Databricks, else a SQLite file in the
    working folder. Raises TrackingError if a server does not answer, or if a database or folder is not an MLflow store.
    """
    uri = reach_store(settings)
    if not is_server(uri) and uri != DATABRICKS:
        _open_store(uri)
    use_store(uri)
    return uri


def reach_store(settings: StoreSettings) -> str:
    """Check that the store of the settings answers, and return its URI. Nothing is created or changed.

    Raises TrackingError as `connect` does.
    """
    uri = settings.uri or os.environ.get("MLFLOW_TRACKING_URI") or _default_uri()
    if is_server(uri):
        problem = ask_server(uri, CONNECT_SECONDS)
        if problem:
            raise TrackingError(
                f"tracking.uri={uri} does not answer ({problem}); start the MLflow server, or correct the address"
            )
    if uri.startswith(SQLITE):
        file = sqlite_file(uri)
        if file.is_dir():
            raise TrackingError(f"tracking.uri={uri} cannot be used: {file} is a folder; name a file in it")
        # Without this check MLflow would try for minutes.
        if not os.access(file.parent, os.W_OK):
            raise TrackingError(
                f"tracking.uri={uri} cannot be used: {file.parent} is not a folder that can be written; "
                "create it, or change its rights"
            )
        # An absolute path, because the ranks of a training have working folders of their own.
        uri = f"{SQLITE}{file}"
    return uri


def ask_server(uri: str, timeout_s: float) -> str:
    """Ask a server whether it is well, as MLflow's client would: with its login and its certificates.

    Returns "", or what is wrong. Any answer counts: a proxy in front of the server may ask for a login.
    """
    try:
        http_request(
            get_default_host_creds(uri), "/health", "GET", max_retries=0, timeout=timeout_s, raise_on_status=False
        )
    except MlflowException as error:
        cause = f"{error} {error.__cause__} {error.__context__}"
        if "CERTIFICATE_VERIFY_FAILED" in cause or "SSLError" in cause:
            return "its certificate is not trusted: set MLFLOW_TRACKING_SERVER_CERT_PATH to the certificate's file"
        kinds = re.findall(r"\w*(?:Error|Timeout|Refused)\b", cause)
        return kinds[-1] if kinds else first_line(error)
    except OSError as error:  # also those of requests
        return type(error).__name__
    return ""


def use_store(uri: str) -> None:
    """Point MLflow at a store that is known to answer, and keep MLflow quiet."""
    quieten()
    mlflow.set_tracking_uri(uri)


def quieten() -> None:
    """Make MLflow log less, and show no progress bars of its own."""
    for name, level in _LOG_LEVELS.items():
        logging.getLogger(name).setLevel(level)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def examine_store(settings: StoreSettings) -> tuple[str, str]:
    """Return the URI of the store and a few words about it. Nothing is created or changed, and no run is written.

    Raises TrackingError if the store does not answer, or if it is already clear that it cannot be written.
    """
    uri = reach_store(settings)
    if uri.startswith(SQLITE):
        file = sqlite_file(uri)
        if not file.exists():
            return uri, "does not exist yet; a training creates it"
        if not os.access(file, os.W_OK):
            raise TrackingError(f"tracking.uri={uri} cannot be written; change the rights of {file}")
    quieten()
    with as_tracking_error(uri):
        experiments = MlflowClient(uri).search_experiments()
    return uri, f"answers; {len(experiments)} experiment{'' if len(experiments) == 1 else 's'}"


def _open_store(uri: str) -> None:
    """Open the store, and create it if there is none yet, without any log line."""
    # MLflow 2 sets up logging again at this moment, which would undo the levels of `quieten`. MLflow 3 does not.
    earlier = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        MlflowClient(uri).search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError, ImportError, OSError, ValueError) as error:
        # For example, the driver of a database is not installed, or the URI is not valid.
        raise TrackingError(f"tracking.uri={uri} cannot be used: {first_line(error)}") from error
    finally:
        logging.disable(earlier)


def _default_uri() -> str:
    if "DATABRICKS_RUNTIME_VERSION" in os.environ:
        return DATABRICKS
    return f"{SQLITE}{Path.cwd() / STORE_FILE}"


def is_server(uri: str) -> bool:
    """Return whether a store is a server rather than files. Raises TrackingError for text that is not a URI."""
    try:
        return urlsplit(uri).scheme in ("http", "https")
    except ValueError as error:
        raise TrackingError(f"tracking.uri={uri} is not a URI: {error}") from error


def sqlite_file(uri: str) -> Path:
    """Return the absolute path of the file of a SQLite store.

    >>> sqlite_file("sqlite:////data/mlflow.db").as_posix()
    '/data/mlflow.db'
    """
    return Path(uri.removeprefix(SQLITE)).absolute()
