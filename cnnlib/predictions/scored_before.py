"""Find the images that earlier scorings have predicted already, by their content."""

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
    """Rows of earlier predictions whose images need no new prediction.

    `paths` are data files of the predictions set at `uri`. `model_sha256` limits them to rows of one model; None means
    any model. Each Python worker reads the ids once, when its first task asks; an id takes 32 bytes of memory.
    """

    uri: str
    paths: tuple[str, ...]
    model_sha256: str | None

    def lacks(self, image_ids: pa.Array) -> pa.Array:
        """Return for each image whether it has no row yet. Raises OutputExistsError if a file cannot be read."""
        known = _known(self.uri, self.paths, self.model_sha256)
        digests = _digests(image_ids)
        if not len(known):
            return pa.repeat(True, len(digests))
        nearest = np.minimum(np.searchsorted(known, digests), len(known) - 1)
        return pa.array(known[nearest] != digests)


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
                f"{folder.path(path)}, a file of the earlier predictions, cannot be read: {first_line(error)}; score "
                "into another folder, or with --score.mode all --output.overwrite true"
            ) from error
        if model_sha256 is not None:
            rows = rows.filter(pc.equal(rows[MODEL_SHA256], model_sha256))
        found.append(_digests(rows[IMAGE_ID]))
    return np.unique(np.concatenate(found))


def _digests(image_ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Convert SHA-256 digests from hexadecimal text to bytes, which take half the memory."""
    return np.frombuffer(bytes.fromhex("".join(image_ids.to_pylist())), _DIGEST)
