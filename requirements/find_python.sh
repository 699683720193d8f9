#!/bin/sh
# Prints the first of the given Pythons that passes the checks of pipelines/spark/prerequisites.py. If none does, prints
# one line that says what is wrong, and exits with status 2.
# Usage, in the project's folder: sh requirements/find_python.sh VENV PYTHON...
set -u
venv=$1
shift

# An environment that works is kept, whichever Python it was made with.
if "$venv/bin/python" -c '' 2>/dev/null; then set -- "$venv/bin/python"; fi

problem="Python 3.10 to 3.12 is needed, but none runs (tried $*): install one, or name one: make PYTHON=/path/to/python"
for python in "$@"; do
    # A name on PATH may not run: pyenv puts names there for versions that are not installed.
    if said=$("$python" pipelines/spark/prerequisites.py "$venv" 2>/dev/null); then
        echo "$python"
        exit 0
    fi
    problem=${said:-$problem}
done
echo "$problem"
exit 2
