"""Check what a machine must have before anything is installed: Java, a Python, a folder that can be written.

The Makefile runs this file with any Python that it finds, and the name of the virtual environment as argument. The
Spark session uses its check of Java. So it needs only the standard library and has the syntax of Python 3.6: even a
Python that is too old must be able to say so. Each check returns "" if nothing is wrong, and otherwise one line: what
is needed, what was found, what to do.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from typing import Mapping, Sequence, Tuple

OLDEST_PYTHON = (3, 10)
NEWEST_PYTHON = (3, 12)
OLDEST_JAVA = 17
# Spark starts Java with this module. A Java that was built without it prints a stack trace instead of starting.
JAVA_MODULE = "jdk.incubator.vector"
JAVA_ADVICE = "install one, e.g. Debian's openjdk-17-jre-headless, or set JAVA_HOME"
UNPACKED_MB = 20  # Spark's libraries take 5 MB, and the rest is for what Spark itself writes
JAVA_SECONDS = 30  # a Java that hangs must not hang us


def python_problem(version_info: Sequence = sys.version_info, executable: str = sys.executable) -> str:
    """Return what is wrong with this Python, or "".

    >>> python_problem((3, 11, 2))
    ''
    >>> python_problem((3, 9, 18), executable="/usr/bin/python3")[:58]
    'Python 3.10 to 3.12 is needed, but /usr/bin/python3 is 3.9'
    """
    if OLDEST_PYTHON <= tuple(version_info[:2]) <= NEWEST_PYTHON:
        return ""
    supported = "{}.{} to {}.{}".format(*OLDEST_PYTHON, *NEWEST_PYTHON)
    found = ".".join(str(part) for part in version_info[:3])
    advice = "install one of those and name it, e.g. make PYTHON=/usr/bin/python3.11"
    venv = re.search(r"/(\.venv[^/]*)/bin/", executable)
    if venv:
        advice = f"remove {venv.group(1)}"  # make keeps an environment, whichever Python the user names
    return f"Python {supported} is needed, but {executable} is {found}: {advice}"


def java_major(version_text: str) -> int:
    """Return the major version of a Java from its version text, or 0 if the text has none.

    >>> [java_major(text) for text in ("1.8.0_402", "17.0.15", "21-ea", "11", "25.0.1+8-LTS", "unknown")]
    [8, 17, 21, 11, 25, 0]
    """
    match = re.match(r"(?:1\.)?(\d+)", version_text)
    return int(match.group(1)) if match else 0


def java_problem(environ: Mapping = os.environ) -> str:
    """Return what is wrong with the Java that Spark would start, or "". It is JAVA_HOME/bin/java, else java on PATH."""
    return find_java(environ)[1]


def find_java(environ: Mapping = os.environ) -> Tuple[str, str]:
    """Return the Java that Spark would start, as far as it is known ("version, path"), and what is wrong with it."""
    needed = f"Java {OLDEST_JAVA} or newer is needed, but"
    home = environ.get("JAVA_HOME")
    if home:
        java = shutil.which(os.path.join(home, "bin", "java"))
        if java is None:
            return "", f"{needed} JAVA_HOME={home} has no bin/java: set it to the folder of a Java, or unset it"
    else:
        java = shutil.which("java", path=environ.get("PATH", ""))
        if java is None:
            return "", f"{needed} no java was found (JAVA_HOME is not set and PATH has none): {JAVA_ADVICE}"

    started, output = _run(java, "-version", environ)
    if not started:
        return java, f"{needed} {java} does not start ({_first_line(output)}): {JAVA_ADVICE}"
    # openjdk version "17.0.15" 2025-04-15. A line about JAVA_TOOL_OPTIONS may precede it.
    quoted = re.search(r'version "([^"]*)"', output)
    version = quoted.group(1) if quoted else ""
    found = f"{version or 'unknown'}, {java}"
    if java_major(version) < OLDEST_JAVA:
        return found, f"{needed} {java} is {version or 'of an unknown version'}: {JAVA_ADVICE}"

    started, output = _run(java, "--list-modules", environ)
    if started and JAVA_MODULE not in output:
        return found, f"{needed} {java} ({version}) lacks the module {JAVA_MODULE}: {JAVA_ADVICE}"
    return found, ""


def unpacking_problem(folder: str) -> str:
    """Return why Java cannot unpack and load libraries in a folder, as Spark lets it do for compression, or ""."""
    try:
        state = os.statvfs(folder)
    except OSError as error:
        return f"{folder} cannot be used ({error.strerror})"
    if state.f_flag & getattr(os, "ST_NOEXEC", 0):
        return f"{folder} is mounted noexec"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"{folder} cannot be written"
    free = state.f_bavail * state.f_frsize // 10**6
    return "" if free >= UNPACKED_MB else f"{folder} has {free} MB free, fewer than {UNPACKED_MB}"


def folder_problem(folder: str, venv_name: str = ".venv") -> str:
    """Return why an environment of this name cannot be created, or renewed, in this folder, or ""."""
    venv = os.path.join(folder, venv_name)
    if os.path.lexists(venv) and not os.path.isdir(venv):
        return f"{venv} must be a folder, but is something else: move it away"
    needed = venv if os.path.isdir(venv) else folder
    # Both rights are needed: without the right to enter a folder, no file can be written into it.
    if not os.access(needed, os.W_OK | os.X_OK):
        return f"{needed} must be writable, but is not: change its rights, or work in a folder of your own"
    return ""


def venv_problem(folder: str, environ: Mapping = os.environ, venv_name: str = ".venv") -> str:
    """Return why this Python cannot create that environment, or "".

    It needs ensurepip, which Debian has in a package of its own, or uv.
    """
    made = os.path.exists(os.path.join(folder, venv_name, "bin", "python"))
    if made or importlib.util.find_spec("ensurepip"):
        return ""
    uv = shutil.which("uv", path=environ.get("PATH", ""))
    if uv is not None and _run(uv, "--version", environ)[0]:
        return ""
    return (
        f"ensurepip or uv is needed to make {venv_name}, but {sys.executable} has no ensurepip and PATH has no uv: "
        "install one, e.g. Debian's python3-venv"
    )


def first_problem(folder: str, venv_name: str = ".venv") -> str:
    """Return the first thing that is wrong with this machine, or "".

    Java comes first, because the Makefile tries one Python after the other, and a missing Java must be named in any
    case.
    """
    return (
        java_problem()
        or python_problem()
        or folder_problem(folder, venv_name)
        or venv_problem(folder, venv_name=venv_name)
    )


def _run(program: str, argument: str, environ: Mapping) -> Tuple[bool, str]:
    """Return whether a program ended with status 0, and everything that it wrote."""
    try:
        done = subprocess.run(
            [program, argument],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=JAVA_SECONDS,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return False, str(error)
    return done.returncode == 0, done.stdout.decode("utf-8", "replace")


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0].strip() if lines else "it says nothing"


def main() -> int:
    problem = first_problem(
        os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), *sys.argv[1:2]
    )
    if problem:
        print(problem)
    return 2 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
