"""Score one task's images. Every row that comes in goes out, with a prediction or with an error.

This is plain Python without Spark. `pipelines.score.flow` calls `score_images` once per task.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import pyarrow as pa

from cnnlib.config import PredictionSettings
from cnnlib.errors import ImageSetError
from cnnlib.image_set.contract import CODE, IMAGE_ID, MESSAGE, PATH, raw_pixels
from cnnlib.image_set.writer import CONTENT
from cnnlib.predictions.contract import (
    EMBEDDING,
    MODEL_NAME,
    MODEL_SHA256,
    MODEL_VERSION,
    SCHEMA,
    SCORED_AT,
    TOP_LABEL_NAMES,
    TOP_LABELS,
    TOP_PROBABILITIES,
    ScoredWith,
    schema_of,
)
from cnnlib.predictions.scored_before import ScoredBefore
from cnnlib.predictions.writer import WrittenPredictions, write_predictions
from cnnlib.sealed.frozen.predict import ERROR, LABEL, LABEL_NAME, PROBABILITIES, PROBABILITY
from cnnlib.sealed.frozen_interface import SealedClassifier, require
from cnnlib.storage.folder import Folder

# Bytes of the pixels that are decoded at once.
PIXEL_BYTES = 32 * 2**20


@dataclass(frozen=True)
class ScorePlan:
    """Everything that is the same for all tasks of one scoring.

    `raw_shape` (height, width, channels) is set if the input has raw pixels, not files. `settings` say which columns
    to write. Images that have a row in `before` are left out.
    """

    folder: Folder
    run_id: str
    model: ScoredWith
    scored_at: datetime
    raw_shape: tuple[int, int, int] | None
    settings: PredictionSettings
    before: ScoredBefore | None = None


def score_images(
    plan: ScorePlan,
    classifier: SealedClassifier,
    batches: Iterable[pa.RecordBatch],
    task: int,
    attempt: int,
) -> WrittenPredictions:
    """Predict one task's images and write the predictions. If the task fails, its file is removed.

    `batches` have PATH and CONTENT. They also have IMAGE_ID if the id is not a hash of the content, and CODE and
    MESSAGE if some images could not be read.
    """
    skipped = 0

    def predicted() -> Iterator[pa.RecordBatch]:
        nonlocal skipped
        for batch in batches:
            if plan.before is not None:
                whole = _with_image_ids(batch)
                batch = whole.filter(plan.before.lacks(whole.column(IMAGE_ID)))
                skipped += whole.num_rows - batch.num_rows
            for part in slices_to_decode(batch, classifier):
                yield predict_batch(plan, classifier, part)

    written = write_predictions(plan.folder, plan.run_id, schema_of(plan.settings), predicted(), task, attempt)
    return replace(written, skipped=skipped)


def slices_to_decode(batch: pa.RecordBatch, classifier: SealedClassifier) -> Iterator[pa.RecordBatch]:
    """Cut a batch into slices whose decoded pixels take at most PIXEL_BYTES, however small the files are."""
    rows = max(1, PIXEL_BYTES // classifier.card.image.size_bytes)
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


def predict_batch(plan: ScorePlan, classifier: SealedClassifier, batch: pa.RecordBatch) -> pa.RecordBatch:
    """Predict every row of a batch. The columns are `contract.schema_of(plan.settings)`."""
    batch = _with_image_ids(batch)
    pixels, errors = decode_batch(batch, plan.raw_shape, classifier)
    if plan.settings.embedding:
        require(classifier, "embed_pixels")
        probabilities, embeddings = classifier.embed_pixels(pixels)
    else:
        probabilities, embeddings = classifier.predict_pixels(pixels), None
    index = prediction_indices(errors)
    labels = pa.array(probabilities.argmax(axis=1), pa.int32()).take(index)
    columns = {
        IMAGE_ID: batch.column(IMAGE_ID),
        PATH: batch.column(PATH),
        LABEL: labels,
        LABEL_NAME: pa.array(classifier.card.classes, pa.string()).take(labels),
        PROBABILITY: pa.array(probabilities.max(axis=1), pa.float64()).take(index),
        MODEL_NAME: pa.repeat(plan.model.name, len(errors)),
        MODEL_VERSION: pa.repeat(pa.scalar(plan.model.version, pa.string()), len(errors)),
        MODEL_SHA256: pa.repeat(plan.model.sha256, len(errors)),
        ERROR: pa.array(errors, pa.string()),
        SCORED_AT: pa.repeat(pa.scalar(plan.scored_at, SCHEMA.field(SCORED_AT).type), len(errors)),
    }
    if plan.settings.top_k:
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, : plan.settings.top_k].astype(np.int32)
        columns[TOP_LABELS] = _lists(best).take(index)
        columns[TOP_LABEL_NAMES] = _lists(np.array(classifier.card.classes, object)[best]).take(index)
        columns[TOP_PROBABILITIES] = _lists(np.take_along_axis(probabilities, best, axis=1)).take(index)
    if plan.settings.probabilities:
        columns[PROBABILITIES] = _lists(probabilities).take(index)
    if embeddings is not None:
        columns[EMBEDDING] = _lists(embeddings).take(index)
    schema = schema_of(plan.settings)
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def prediction_indices(errors: Sequence[str | None]) -> pa.Array:
    """Return the index of each row's prediction, or null for a row with an error.

    Arrow's `take` with these indices turns an array with one value per prediction into one with a value per row.

    >>> prediction_indices([None, "truncated: it ends early", None]).to_pylist()
    [0, None, 1]
    """
    usable = np.array([error is None for error in errors], bool)
    return pa.array(np.cumsum(usable) - 1, mask=~usable)


def _lists(rows: np.ndarray) -> pa.Array:
    """Convert an array (rows, values) to one list per row."""
    count, length = rows.shape
    values = pa.array(rows.ravel())
    return pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * length), values)


def decode_batch(
    batch: pa.RecordBatch, raw_shape: tuple[int, int, int] | None, classifier: SealedClassifier
) -> tuple[np.ndarray, list[str | None]]:
    """Decode CONTENT with the model's own decoder: (pixels, errors), as its `to_pixels` returns them.

    A row whose CODE says why it could not be read has that error. `raw_shape` is described in `ScorePlan`. Raises
    ImageSetError if raw pixels have another size.
    """
    contents = batch.column(CONTENT)
    if raw_shape is not None and raw_shape == classifier.card.image.shape:
        try:
            return raw_pixels(contents, raw_shape), [None] * batch.num_rows
        except ValueError as error:
            raise ImageSetError(f"{error}, which the set's image spec asks for; ingest it again") from error
    images = contents.to_pylist()
    if raw_shape is not None:
        images = [np.frombuffer(image, np.uint8).reshape(raw_shape) for image in images]
    pixels, errors = classifier.to_pixels(images, fit=True)
    if CODE in batch.schema.names:
        # It says more than the model's error for a row without content.
        for row, code in enumerate(batch.column(CODE).to_pylist()):
            if code is not None:
                errors[row] = f"{code}: {batch.column(MESSAGE)[row]}"
    return pixels, errors


def _with_image_ids(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Add IMAGE_ID, the SHA-256 of each content, to a batch that lacks it."""
    if IMAGE_ID in batch.schema.names:
        return batch
    # An image that could not be read has no content to hash. The hash of its path tells it from the others.
    hashed = (
        content.as_py() if content.is_valid else (path.as_py() or "").encode()
        for content, path in zip(batch.column(CONTENT), batch.column(PATH), strict=True)
    )
    ids = pa.array([hashlib.sha256(name).hexdigest() for name in hashed], pa.string())
    return pa.RecordBatch.from_arrays([*batch.columns, ids], names=[*batch.schema.names, IMAGE_ID])
