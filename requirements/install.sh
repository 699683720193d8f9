#!/bin/sh
# Makes VENV where there is none, and brings it to requirements/PROFILE.txt, dev/PROFILE.txt and this project
# (editable). One VENV must not serve two profiles: what only the other one has would stay.
# Does nothing where that is done already. With uv where it is there or can be installed, else with pip.
# Usage, in the project's folder: sh requirements/install.sh PYTHON PROFILE VENV
set -eu
python=$1
pins=requirements/$2.txt
dev=requirements/dev/$2.txt
venv=$3

# The path counts too: the command sparkcnn holds it, so a folder that was moved is installed anew.
state=$({ pwd; cat "$pins" "$dev" setup.py "$0"; } | cksum | cut -d ' ' -f 1)
stamp=$venv/installed-$2-$state
[ ! -e "$stamp" ] || exit 0

log=$(mktemp)
trap 'rm -f "$log"' EXIT
trap 'exit 130' INT TERM
quietly() { "$@" >>"$log" 2>&1; }
give_up() {
    cat "$log"
    echo "$1 failed: the lines above say why" >&2
    exit 1
}

# uv must take the Python that was checked, not fetch or find another.
export UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1
# As pip does: where a process may not write bytecode, each would compile TensorFlow anew.
export UV_COMPILE_BYTECODE=1
export PIP_DISABLE_PIP_VERSION_CHECK=1
python=$("$python" -c 'import sys; print(sys.executable)')
# uv does not read pip's settings, and must not go round the index that they name.
if [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ]; then
    index=$("$python" -m pip config list 2>/dev/null | sed -nE "s/^(:env:|global)\.index-url='(.*)'$/\2/p" | head -n 1)
    [ -z "$index" ] || export UV_DEFAULT_INDEX="$index"
fi

if ! "$venv/bin/python" -c '' 2>/dev/null; then
    rm -rf "$venv"
    # --seed adds pip, so that it holds the same whoever made it.
    quietly uv venv --seed --python "$python" "$venv" || quietly "$python" -m venv --clear "$venv" || give_up "making $venv"
fi
rm -f "$venv"/installed-* # an interrupted install must not pass for a finished one
# Nor an interrupted venv: what it lacks is pip.
quietly "$venv/bin/python" -m pip --version || quietly "$venv/bin/python" -m ensurepip || :

uv=uv
if ! quietly uv --version; then
    uv=$venv/bin/uv
    quietly "$uv" --version || quietly "$venv/bin/python" -m pip install --quiet uv || uv=
fi

install() { # what to install, as pip and uv both take it
    if [ -n "$uv" ] && quietly "$uv" pip install --python "$venv/bin/python" "$@"; then return; fi
    # Where uv cannot (an index that only pip's settings reach, say), pip may.
    quietly "$venv/bin/python" -m pip install --quiet "$@" || give_up "installing $*"
}

tool=pip
[ -z "$uv" ] || tool=uv
echo "installing $pins into $venv with $tool (3 GB; minutes) ..."
install -r "$pins" -r "$dev"
# Built with the setuptools of the pins: nothing else is fetched.
install --no-deps --no-build-isolation -e .
# Local Spark starts 2 s sooner with it, and does without it.
quietly "$venv/bin/python" -m pipelines.class_archive || { tail -n 1 "$log"; echo "going on without"; }
: >"$stamp"
