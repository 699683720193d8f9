"""All that is about Spark itself: session, tasks, progress, cluster. It imports none of the flows."""

from typing import TYPE_CHECKING

from cnnlib import import_on_use

if TYPE_CHECKING:
    from pipelines.spark.session import spark_session

__all__ = ["spark_session"]

__getattr__ = import_on_use(__name__, spark_session="session")

# Modules that may import TensorFlow or MLflow: none. Read by tests/unit/test_import_rules.py.
LIGHT_BUT_FOR = ()
