"""Checks of this machine: Python, Java, and the installed packages."""

import importlib
import importlib.metadata
import os
import platform
import subprocess
import sys

from cnnlib.errors import HostError
from pipelines.doctor.examination import NotChecked, Problem
from pipelines.spark.prerequisites import find_java, python_problem
from pipelines.tracking.requirements import MODULES, installed_as

OURS = "sparkcnn"


def check_python() -> str:
    """Check the version of this Python."""
    found = f"{platform.python_version()}, {sys.executable}"
    problem = python_problem()
    if problem:
        raise Problem(found, problem)
    return found


def check_java() -> str:
    """Check the Java that Spark would start."""
    found, problem = find_java()
    if problem:
        raise Problem(found, problem)
    return found


def requirements() -> list[str]:
    """List the requirements of the installed sparkcnn, as in setup.py, without those of extras.

    The list is empty if it is not installed.
    """
    try:
        listed = importlib.metadata.requires(OURS) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return sorted(one for one in listed if "extra ==" not in one)


def requirement_name(requirement: str) -> str:
    """Return the name of the package in a requirement.

    >>> requirement_name("jsonargparse[signatures]<5,>=4.40")
    'jsonargparse'
    """
    from packaging.requirements import Requirement

    return Requirement(requirement).name


def check_requirement(requirement: str) -> str:
    """Check that the installed version of a package is in the required range."""
    from packaging.requirements import Requirement

    needed = Requirement(requirement)
    if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
        raise NotChecked(f"needed only if {needed.marker}")
    # The lower bound comes first, as in setup.py.
    bounds = ",".join(sorted(map(str, needed.specifier), key=lambda bound: bound.startswith("<"))) or "any version"
    installed = installed_as(needed.name, MODULES.get(needed.name, needed.name))
    if installed is None:
        raise Problem("not installed", f"install {needed.name} ({bounds})")
    name, version = installed
    found = f"{version} ({bounds})" + (f", installed as {name}" if name != needed.name else "")
    if not needed.specifier.contains(version, prereleases=True):
        raise Problem(found, f"install {needed.name} {bounds}")
    return found


def check_tensorflow(timeout_s: float) -> str:
    """Check that TensorFlow and Keras import, and count the GPUs.

    They are imported in another process, because a broken TensorFlow may end its process.
    """
    program = (
        "from cnnlib.quiet import import_tensorflow_quietly\n"
        "import_tensorflow_quietly()\n"
        "import keras, tensorflow as tf\n"
        "gpus = len(tf.config.list_physical_devices('GPU'))\n"
        "print(f'imports; Keras runs on {keras.backend.backend()}; {gpus} GPUs here')"
    )
    environment = {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    try:
        ended = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=timeout_s
        )
    except subprocess.TimeoutExpired:
        raise HostError("TensorFlow takes too long to import; raise timeout_s, or install it again") from None
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no error message"])[-1]
        raise HostError(f"TensorFlow does not import (exit status {ended.returncode}: {last}); install it again")
    return ended.stdout.strip().splitlines()[-1]


def check_petastorm() -> str:
    """Check that petastorm imports through the bridge, and that its version is one that the bridge was tested with."""
    importlib.import_module("cnnlib.feed.petastorm.reader")
    bridge = importlib.import_module("cnnlib.feed.petastorm.arrow_bridge")
    warning = bridge.version_warning(importlib.metadata.version("petastorm"))
    if warning:
        raise Problem("imports through the bridge", warning)
    return "imports through the bridge"
