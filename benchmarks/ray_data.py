"""How the benchmarks install and start Ray."""

import os
import socket
from typing import Any

# The packages that Ray needs and sparkcnn lacks. Ray must use the same pyarrow, NumPy and Pillow as sparkcnn. With its
# own, it would not read the same images.
RAY_PACKAGES = (
    *("ray==2.60.0", "filelock", "msgpack", "jsonschema", "jsonschema-specifications", "referencing", "rpds-py"),
    "attrs",
)
# Ray listens on every network interface, whatever address it gets: Ray 2.60 replaces 127.0.0.1 with the address of the
# machine. So this runs a command where the loopback is the only interface. When the command ends, all processes that it
# has started end too.
ISOLATE = ["unshare", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
ISOLATE += ["sh", "-c", 'ip link set lo up && "$@"', "sh"]


def start_ray(temporary: str) -> Any:
    """Start Ray for this process only, on all cores, and return its module. Call `shutdown` of the module afterwards.

    Ray makes sockets in the folder `temporary`, so its path must be short. Raises OSError if other machines could reach
    Ray.
    """
    reachable = [name for _, name in socket.if_nameindex() if name != "lo"]
    if reachable:
        raise OSError(f"Ray would listen on {', '.join(reachable)}; run this where there is no interface but lo")
    # Ray reads these when it is imported.
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
    import ray

    ray.init(
        address="local",
        num_cpus=os.cpu_count(),
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        _temp_dir=temporary,
    )
    return ray
