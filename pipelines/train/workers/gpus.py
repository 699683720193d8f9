"""The GPU that Spark assigns to a task: TensorFlow must find it, or it would train on the CPU without a word."""

from cnnlib.errors import HostError


def check_gpu(address: str, whose: str) -> None:
    """Raise HostError where TensorFlow finds no GPU in a process that shall see the one at this address alone."""
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        raise HostError(
            f"Spark assigned GPU {address} to {whose}, but TensorFlow finds no such GPU; check its driver and "
            "spark.executor.resource.gpu.discoveryScript"
        )
