"""One task's share of a scoring: every row that comes in goes out, with a prediction or with what is wrong.

Plain Python without Spark: `pipelines.score` runs one `score_share` a task.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa

from cnnlib.errors import ImageSetError
from cnnlib.imageset import CODE, IMAGE_ID, MESSAGE, PATH, raw_pixels
from cnnlib.imageset_writer import CONTENT, Count
from cnnlib.predict import ERROR, LABEL, LABEL_NAME, PROBABILITY, Classifier
from cnnlib.predictions import MODEL_NAME, MODEL_SHA256, MODEL_VERSION, SCHEMA, SCORED_AT, ScoredWith
from cnnlib.predictions_writer import Share, write_share
from cnnlib.storage import Folder

PIXEL_BYTES = 32 * 2**20


@dataclass(frozen=True)
class ScorePlan:
    """What every task of one scoring has in common.

    `raw_shape` (height, width, channels) is set where the input has arrays, not files.
    """

    folder: Folder
    run_id: str
    model: ScoredWith
    scored_at: datetime
    raw_shape: tuple[int, int, int] | None


def score_share(
    plan: ScorePlan,
    classifier: Classifier,
    count_images: Count,
    batches: Iterable[pa.RecordBatch],
    task: int,
    attempt: int,
) -> Share:
    """Predict one task's images and write the predictions. The file of a task that fails is removed.

    `batches` have PATH and CONTENT; IMAGE_ID, where it is not a hash of the content; CODE and MESSAGE, where some could
    not be read.
    """

    # However small the files, so many of them are unpacked at a time.
    most = max(1, PIXEL_BYTES // classifier.card.image.size_bytes)

    def predicted() -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for start in range(0, batch.num_rows, most):
                part = batch.slice(start, most)
                yield predict_batch(plan, classifier, part)
                if count_images is not None:
                    count_images(part.num_rows)

    return write_share(plan.folder, plan.run_id, predicted(), task, attempt)


def predict_batch(plan: ScorePlan, classifier: Classifier, batch: pa.RecordBatch) -> pa.RecordBatch:
    """A prediction for every row of a batch: `predictions.SCHEMA`."""
    pixels, errors = _pixels(plan, classifier, batch)
    probabilities = classifier.predict_pixels(pixels)
    usable = np.array([error is None for error in errors], bool)
    # Which of the predictions is a row's; null for one that has none, and so is all that is taken by it.
    place = pa.array(np.cumsum(usable) - 1, mask=~usable)
    labels = pa.array(probabilities.argmax(axis=1), pa.int32()).take(place)
    columns = {
        IMAGE_ID: _image_ids(batch),
        PATH: batch.column(PATH),
        LABEL: labels,
        LABEL_NAME: pa.array(classifier.card.classes, pa.string()).take(labels),
        PROBABILITY: pa.array(probabilities.max(axis=1), pa.float64()).take(place),
        MODEL_NAME: pa.repeat(plan.model.name, len(errors)),
        MODEL_VERSION: pa.repeat(pa.scalar(plan.model.version, pa.string()), len(errors)),
        MODEL_SHA256: pa.repeat(plan.model.sha256, len(errors)),
        ERROR: pa.array(errors, pa.string()),
        SCORED_AT: pa.repeat(pa.scalar(plan.scored_at, SCHEMA.field(SCORED_AT).type), len(errors)),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _pixels(plan: ScorePlan, classifier: Classifier, batch: pa.RecordBatch) -> tuple[np.ndarray, list[str | None]]:
    """What `Classifier.to_pixels` gives, and first what is known of rows that could not be read at all."""
    contents = batch.column(CONTENT)
    shape = plan.raw_shape
    if shape is not None and shape == classifier.card.image.shape:
        try:
            return raw_pixels(contents, shape), [None] * batch.num_rows
        except ValueError as error:
            raise ImageSetError(f"{error}, as the set's image spec has it; ingest the set anew") from error
    images = contents.to_pylist()
    if shape is not None:
        images = [np.frombuffer(image, np.uint8).reshape(shape) for image in images]
    pixels, errors = classifier.to_pixels(images)
    if CODE in batch.schema.names:
        # It says more than what the model makes of no content.
        for row, code in enumerate(batch.column(CODE).to_pylist()):
            if code is not None:
                errors[row] = f"{code}: {batch.column(MESSAGE)[row]}"
    return pixels, errors


def _image_ids(batch: pa.RecordBatch) -> pa.Array:
    if IMAGE_ID in batch.schema.names:
        return batch.column(IMAGE_ID)
    # An image that could not be read has no content to name it by; its path keeps it apart from the others.
    named_by = (
        content.as_py() if content.is_valid else path.as_py().encode()
        for content, path in zip(batch.column(CONTENT), batch.column(PATH), strict=True)
    )
    return pa.array([hashlib.sha256(name).hexdigest() for name in named_by], pa.string())
