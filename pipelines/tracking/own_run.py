"""A job's run is its own: what else MLflow is told to do in this process waits until the job has ended.

Databricks turns autologging on in notebooks by itself, and names an experiment and sometimes a run in variables.
Autologging would read our feed, which never ends, to describe it. MLflow would go on with the run that MLFLOW_RUN_ID
names, and end it, whatever run the job asks for.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.tracking import fluent
from mlflow.utils.autologging_utils import disable_autologging

_RUN, _EXPERIMENT_NAME, _EXPERIMENT_ID = "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"

_log = logging.getLogger("sparkcnn")


@contextmanager
def own_run(experiment: str) -> Iterator[None]:
    """Keep variables, the chosen experiment and autologging away from the runs that the body starts.

    All of it is put back at the end. A warning names each variable that asks for another run or experiment.
    """
    hidden = {name: os.environ.pop(name) for name in (_RUN, _EXPERIMENT_NAME, _EXPERIMENT_ID) if name in os.environ}
    for name, value in hidden.items():
        if value and value != experiment:
            _log.warning(
                "%s=%s is not used: this job has its own run in tracking.experiment=%s", name, value, experiment
            )
    # mlflow.set_experiment remembers its choice, and then MLflow refuses to go on with a run of another experiment.
    chosen, fluent._active_experiment_id = fluent._active_experiment_id, None
    try:
        with disable_autologging():
            yield
    finally:
        fluent._active_experiment_id = chosen
        os.environ.update(hidden)
