#!/bin/sh
# Creates VENV if it does not exist, and installs requirements/PROFILE.txt, dev/PROFILE.txt and this project (editable)
# into it. Does nothing if that is already done. Uses uv if it exists or can be installed, otherwise pip.
# Use one VENV per profile, because packages that only another profile has would stay in it.
# Usage, in the project's folder: sh requirements/install.sh PYTHON PROFILE VENV
set -eu
python=$1
pins=requirements/$2.txt
dev=requirements/dev/$2.txt
venv=$3

# The path counts too: the command sparkcnn contains it, so a folder that was moved is installed again.
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

# uv must use the Python that was checked, and not download or find another one.
export UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1
# Compile bytecode now, as pip does. Otherwise processes that may not write it would compile TensorFlow at every start.
export UV_COMPILE_BYTECODE=1
export PIP_DISABLE_PIP_VERSION_CHECK=1
python=$("$python" -c 'import sys; print(sys.executable)')
# uv does not read pip's settings, but must use the package index that they name.
if [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ]; then
    index=$("$python" -m pip config list 2>/dev/null | sed -nE "s/^(:env:|global)\.index-url='(.*)'$/\2/p" | head -n 1)
    [ -z "$index" ] || export UV_DEFAULT_INDEX="$index"
fi

if ! "$venv/bin/python" -c '' 2>/dev/null; then
    rm -rf "$venv"
    # --seed adds pip, so that the environment has the same packages whether uv or venv made it.
    quietly uv venv --seed --python "$python" "$venv" || quietly "$python" -m venv --clear "$venv" || give_up "making $venv"
fi
rm -f "$venv"/installed-* # an interrupted installation must not count as finished
# An interrupted creation of the environment may have left it without pip.
quietly "$venv/bin/python" -m pip --version || quietly "$venv/bin/python" -m ensurepip || :

uv=uv
if ! quietly uv --version; then
    uv=$venv/bin/uv
    quietly "$uv" --version || quietly "$venv/bin/python" -m pip install --quiet uv || uv=
fi

install() { # the arguments of `pip install`, which uv understands too
    if [ -n "$uv" ] && quietly "$uv" pip install --python "$venv/bin/python" "$@"; then return; fi
    # pip may succeed if uv fails, for example with a package index that only pip's settings can reach.
    quietly "$venv/bin/python" -m pip install --quiet "$@" || give_up "installing $*"
}

tool=pip
[ -z "$uv" ] || tool=uv
echo "installing $pins into $venv with $tool (3 GB; minutes) ..."
install -r "$pins" -r "$dev"
# Build with the pinned setuptools, so that nothing else is downloaded.
install --no-deps --no-build-isolation -e .
# Local Spark starts 2 s sooner with this archive, but also works without it.
quietly "$venv/bin/python" -m pipelines.class_archive || { tail -n 1 "$log"; echo "continuing without the archive"; }
: >"$stamp"
