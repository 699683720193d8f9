"""Install Ray beside this environment's packages, and the command that keeps it from the network."""

import sys
from pathlib import Path

from benchmarks.processes import pip_install

# Ray listens on every network interface that it finds, so run it where it finds only the loopback. When the command
# ends, all processes that it has started end too.
ISOLATE = ["unshare", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
ISOLATE += ["sh", "-c", 'ip link set lo up && "$@"', "sh"]
# The packages that Ray needs and sparkcnn lacks. Ray must use the same pyarrow, NumPy and Pillow as sparkcnn, because
# with its own it would not read the same images.
_PACKAGES = (
    *("ray==2.60.0", "filelock", "msgpack", "jsonschema", "jsonschema-specifications", "referencing", "rpds-py"),
    "attrs",
)


def install_ray(folder: Path) -> None:
    """Install Ray into a folder, to be put on PYTHONPATH. Raises CommandFailed with pip's message if that fails."""
    pip_install(sys.executable, "--no-deps", "--target", str(folder), *_PACKAGES)
