"""MNIST as package data: 60,000 training and 10,000 test images, 28 x 28 grey, ten digits.

Source: Y. LeCun, C. Cortes and C. Burges; the licence stands in LICENSE.md beside the files.
"""

import gzip
import hashlib
from importlib.resources import files

from cnnlib.errors import SourceError

# MD5 of the uncompressed files, as published with many copies of the set.
MD5 = {
    "train-images-idx3-ubyte.gz": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte.gz": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte.gz": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte.gz": "27ae3e4e09519cfbb04c329615203637",
}


def read_mnist_file(name: str) -> bytes:
    """Give the uncompressed bytes of one of the four IDX files, checked against its MD5.

    Works from a folder and from a zipped wheel alike. Raises SourceError when the bytes are not the published ones.
    """
    content = gzip.decompress(files(__name__).joinpath(name).read_bytes())
    # Not for security: MD5 is what the set was published with.
    received = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if received != MD5[name]:
        raise SourceError(f"the embedded {name} is damaged: MD5 {received}, expected {MD5[name]}; install again")
    return content


# Imports neither TensorFlow nor MLflow: tests/unit/test_import_rules.py reads this.
LIGHT_BUT_FOR = ()
