"""MNIST as package data: 60,000 training and 10,000 test images of ten digits, 28 x 28 grey pixels each.

Source: Y. LeCun, C. Cortes and C. Burges. The licence is in LICENSE.md, in this folder.
"""

import gzip
import hashlib
from importlib.resources import files

from cnnlib.errors import SourceError

# MD5 of the uncompressed files, as many copies of the set publish it.
MD5 = {
    "train-images-idx3-ubyte.gz": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte.gz": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte.gz": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte.gz": "27ae3e4e09519cfbb04c329615203637",
}


def read_mnist_file(name: str) -> bytes:
    """Return the uncompressed bytes of one of the four IDX files, after a check of their MD5.

    This works from a folder and from a zipped wheel. Raises SourceError if the bytes are not the published ones.

    >>> len(read_mnist_file("t10k-labels-idx1-ubyte.gz"))  # 8 bytes of header, and a byte per label
    10008
    """
    content = gzip.decompress(files(__name__).joinpath(name).read_bytes())
    # MD5 is the checksum that the set was published with. It is not for security.
    received = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if received != MD5[name]:
        raise SourceError(f"the packaged {name} is damaged: MD5 {received}, expected {MD5[name]}; reinstall sparkcnn")
    return content


# Imports neither TensorFlow nor MLflow: tests/unit/test_import_rules.py reads this.
LIGHT_BUT_FOR = ()
