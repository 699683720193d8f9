"""One task's share of a scoring: every row that comes in goes out, with a prediction or with what is wrong.

Plain Python without Spark: `pipelines.score.flow` runs one `score_images` a task.
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
from cnnlib.sealed.frozen.predict import ERROR, LABEL, LABEL_NAME, PROBABILITIES, PROBABILITY, Classifier
from cnnlib.storage.folder import Folder

PIXEL_BYTES = 32 * 2**20


@dataclass(frozen=True)
class ScorePlan:
    """What every task of one scoring has in common.

    `raw_shape` (height, width, channels) is set where the input has arrays, not files; `settings` say what columns
    there are. Rows that are in `before` are left out.
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
    classifier: Classifier,
    batches: Iterable[pa.RecordBatch],
    task: int,
    attempt: int,
) -> WrittenPredictions:
    """Predict one task's images and write the predictions. The file of a task that fails is removed.

    `batches` have PATH and CONTENT; IMAGE_ID, where it is not a hash of the content; CODE and MESSAGE, where some could
    not be read.
    """

    # However small the files, so many of them are unpacked at a time.
    most = max(1, PIXEL_BYTES // classifier.card.image.size_bytes)
    skipped = 0

    def predicted() -> Iterator[pa.RecordBatch]:
        nonlocal skipped
        for batch in batches:
            if plan.before is not None:
                whole = _identified(batch)
                batch = whole.filter(plan.before.lacks(whole.column(IMAGE_ID)))
                skipped += whole.num_rows - batch.num_rows
            for start in range(0, batch.num_rows, most):
                yield predict_batch(plan, classifier, batch.slice(start, most))

    share = write_predictions(plan.folder, plan.run_id, schema_of(plan.settings), predicted(), task, attempt)
    return replace(share, skipped=skipped)


def predict_batch(plan: ScorePlan, classifier: Classifier, batch: pa.RecordBatch) -> pa.RecordBatch:
    """A prediction for every row of a batch: `predictions.schema_of` the plan's settings."""
    batch = _identified(batch)
    pixels, errors = pixels_of(batch, plan.raw_shape, classifier)
    if plan.settings.embedding:
        probabilities, embeddings = classifier.embed_pixels(pixels)
    else:
        probabilities, embeddings = classifier.predict_pixels(pixels), None
    place = places_of(errors)
    labels = pa.array(probabilities.argmax(axis=1), pa.int32()).take(place)
    columns = {
        IMAGE_ID: batch.column(IMAGE_ID),
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
    if plan.settings.top_k:
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, : plan.settings.top_k].astype(np.int32)
        columns[TOP_LABELS] = _lists(best).take(place)
        columns[TOP_LABEL_NAMES] = _lists(np.array(classifier.card.classes, object)[best]).take(place)
        columns[TOP_PROBABILITIES] = _lists(np.take_along_axis(probabilities, best, axis=1)).take(place)
    if plan.settings.probabilities:
        columns[PROBABILITIES] = _lists(probabilities).take(place)
    if embeddings is not None:
        columns[EMBEDDING] = _lists(embeddings).take(place)
    schema = schema_of(plan.settings)
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def places_of(errors: Sequence[str | None]) -> pa.Array:
    """Which of the predictions is a row's; null for one that has none, and so is all that is taken by it.

    >>> places_of([None, "truncated: it ends early", None]).to_pylist()
    [0, None, 1]
    """
    usable = np.array([error is None for error in errors], bool)
    return pa.array(np.cumsum(usable) - 1, mask=~usable)


def _lists(rows: np.ndarray) -> pa.Array:
    """An array (rows, values) as a list a row."""
    count, length = rows.shape
    values = pa.array(rows.ravel())
    return pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * length), values)


def pixels_of(
    batch: pa.RecordBatch, raw_shape: tuple[int, int, int] | None, classifier: Classifier
) -> tuple[np.ndarray, list[str | None]]:
    """What `Classifier.to_pixels` gives for CONTENT, and first what is known of rows that could not be read at all.

    `raw_shape` is as in `ScorePlan`. Raises ImageSetError for arrays of another size.
    """
    contents = batch.column(CONTENT)
    if raw_shape is not None and raw_shape == classifier.card.image.shape:
        try:
            return raw_pixels(contents, raw_shape), [None] * batch.num_rows
        except ValueError as error:
            raise ImageSetError(f"{error}, as the set's image spec has it; ingest the set anew") from error
    images = contents.to_pylist()
    if raw_shape is not None:
        images = [np.frombuffer(image, np.uint8).reshape(raw_shape) for image in images]
    pixels, errors = classifier.to_pixels(images, fit=True)
    if CODE in batch.schema.names:
        # It says more than what the model makes of no content.
        for row, code in enumerate(batch.column(CODE).to_pylist()):
            if code is not None:
                errors[row] = f"{code}: {batch.column(MESSAGE)[row]}"
    return pixels, errors


def _identified(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch with IMAGE_ID: what it has, or the SHA-256 of each content."""
    if IMAGE_ID in batch.schema.names:
        return batch
    # An image that could not be read has no content to name it by; its path keeps it apart from the others.
    named_by = (
        content.as_py() if content.is_valid else (path.as_py() or "").encode()
        for content, path in zip(batch.column(CONTENT), batch.column(PATH), strict=True)
    )
    ids = pa.array([hashlib.sha256(name).hexdigest() for name in named_by], pa.string())
    return pa.RecordBatch.from_arrays([*batch.columns, ids], names=[*batch.schema.names, IMAGE_ID])
