"""What earlier scorings have given predictions for already, by the content of the images."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cnnlib.errors import OutputExistsError, first_line
from cnnlib.image_set.contract import IMAGE_ID
from cnnlib.predictions.contract import MODEL_SHA256
from cnnlib.storage.folder import open_folder

_DIGEST = "S32"


@dataclass(frozen=True)
class ScoredBefore:
    """The rows of earlier predictions that count: those of the model with this SHA-256, None for any model.

    `paths` are data files of the predictions set at `uri`. Tasks read their ids when they first ask, once a worker: an
    id takes 32 bytes of memory there.
    """

    uri: str
    paths: tuple[str, ...]
    model_sha256: str | None

    def lacks(self, image_ids: pa.Array) -> pa.Array:
        """Which of the images have no row yet, a bool each. Raises OutputExistsError where a file cannot be read."""
        known = _known(self.uri, self.paths, self.model_sha256)
        digests = _digests(image_ids)
        if not len(known):
            return pa.repeat(True, len(digests))
        place = np.minimum(np.searchsorted(known, digests), len(known) - 1)
        return pa.array(known[place] != digests)


@lru_cache(maxsize=1)
def _known(uri: str, paths: tuple[str, ...], model_sha256: str | None) -> np.ndarray:
    folder = open_folder(uri)
    found = [np.empty(0, _DIGEST)]
    for path in paths:
        try:
            with folder.fs.open(folder.path(path), "rb") as file:
                rows = pq.read_table(file, columns=[IMAGE_ID, MODEL_SHA256])
        except (OSError, pa.ArrowException) as error:
            raise OutputExistsError(
                f"{folder.path(path)}, of the predictions there, cannot be read: {first_line(error)}; score into "
                "another folder, or with --score.mode all --output.overwrite true"
            ) from error
        if model_sha256 is not None:
            rows = rows.filter(pc.equal(rows[MODEL_SHA256], model_sha256))
        found.append(_digests(rows[IMAGE_ID]))
    return np.unique(np.concatenate(found))


def _digests(image_ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """SHA-256 as bytes: half of what its digits take."""
    return np.frombuffer(bytes.fromhex("".join(image_ids.to_pylist())), _DIGEST)
