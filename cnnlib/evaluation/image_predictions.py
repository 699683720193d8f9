"""Predict labelled images: one row per image, from which Spark counts.

This is plain Python without Spark. `pipelines.evaluate.image_predictions` runs `predict_labelled` in its tasks.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cnnlib.evaluation.corruptions import CORRUPTIONS
from cnnlib.image_set.contract import IMAGE_ID, LABEL, PATH
from cnnlib.predictions.score_batch import decode_batch, prediction_indices, slices_to_decode
from cnnlib.sealed.frozen.predict import ERROR, PROBABILITY
from cnnlib.sealed.frozen_interface import SealedClassifier

PREDICTED = "predicted"
LABEL_PROBABILITY = "label_probability"
LABEL_RANK = "label_rank"


@dataclass(frozen=True)
class ImagePredictionsPlan:
    """Everything that is the same for all tasks of one evaluation.

    `classes` are the image set's, then the ones that only the model knows; labels are indices into them. `raw_shape` is
    described in `score_batch.ScorePlan`. `corruptions` are names from `corruptions.CORRUPTIONS`.
    """

    classes: tuple[str, ...]
    raw_shape: tuple[int, int, int] | None
    corruptions: tuple[str, ...]

    @property
    def schema(self) -> pa.Schema:
        """One row per image.

        A row has the label, the predicted label, the probabilities of both, and the number of classes that the model
        finds more probable than the true one. A column per corruption has the label that is predicted under it. In a
        row with an error, all predictions are null.
        """
        return pa.schema(
            [
                (IMAGE_ID, pa.string()),
                (PATH, pa.string()),
                (LABEL, pa.int32()),
                (PREDICTED, pa.int32()),
                (PROBABILITY, pa.float64()),
                (LABEL_PROBABILITY, pa.float64()),
                (LABEL_RANK, pa.int32()),
                (ERROR, pa.string()),
                *((name, pa.int32()) for name in self.corruptions),
            ]
        )


def all_classes(of_set: Sequence[str], of_model: Sequence[str]) -> tuple[str, ...]:
    """Join the classes of an image set and a model, as `ImagePredictionsPlan.classes` has them.

    >>> all_classes(["cat", "dog"], ["dog", "emu", "cat"])
    ('cat', 'dog', 'emu')
    """
    return tuple(dict.fromkeys([*of_set, *of_model]))


def predict_labelled(
    plan: ImagePredictionsPlan, classifier: SealedClassifier, batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Predict batches with IMAGE_ID, PATH, CONTENT and LABEL: rows of `plan.schema`."""
    for batch in batches:
        for part in slices_to_decode(batch, classifier):
            yield predict_labelled_batch(plan, classifier, part)


def predict_labelled_batch(
    plan: ImagePredictionsPlan, classifier: SealedClassifier, batch: pa.RecordBatch
) -> pa.RecordBatch:
    """Predict one batch: rows of `plan.schema`."""
    pixels, errors = decode_batch(batch, plan.raw_shape, classifier)
    index = prediction_indices(errors)
    usable = index.is_valid()
    # The label of each of the model's classes, and the model's label of each class (-1 if the model lacks it).
    label_of = {name: label for label, name in enumerate(plan.classes)}
    from_model = np.array([label_of[name] for name in classifier.card.classes], np.int32)
    to_model = np.full(len(plan.classes), -1, np.int32)
    to_model[from_model] = np.arange(len(from_model))

    probabilities = classifier.predict_pixels(pixels)
    labels = to_model[batch.column(LABEL).filter(usable).to_numpy()]
    label_probability, label_rank = _probability_and_rank(probabilities, labels)
    columns = {
        **{name: batch.column(name) for name in (IMAGE_ID, PATH, LABEL)},
        PREDICTED: pa.array(from_model[probabilities.argmax(axis=1)]).take(index),
        PROBABILITY: pa.array(probabilities.max(axis=1), pa.float64()).take(index),
        LABEL_PROBABILITY: pa.array(label_probability, pa.float64()).take(index),
        LABEL_RANK: pa.array(label_rank, pa.int32()).take(index),
        ERROR: pa.array(errors, pa.string()),
    }
    image_ids = batch.column(IMAGE_ID).filter(usable).to_pylist()
    for name in plan.corruptions:
        damaged = CORRUPTIONS[name](pixels, image_ids) if len(pixels) else pixels
        columns[name] = pa.array(from_model[classifier.predict_pixels(damaged).argmax(axis=1)]).take(index)
    return pa.RecordBatch.from_arrays([columns[name] for name in plan.schema.names], schema=plan.schema)


def _probability_and_rank(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability and the rank of each row's label, (rows,) each. `labels` are (rows,) int.

    The most probable class has rank 0; of equal ones, the first comes first, as in argmax. A label of -1, which the
    model does not know, has probability 0 and the last rank.

    >>> _probability_and_rank(np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]]), np.array([2, 1]))
    (array([0.3, 0.4]), array([1, 1]))
    """
    rows = np.arange(len(labels))
    known = labels >= 0
    probability = np.where(known, probabilities[rows, labels], 0.0)
    earlier = np.arange(probabilities.shape[1]) < labels[:, None]
    ahead = (probabilities > probability[:, None]) | ((probabilities == probability[:, None]) & earlier)
    return probability, np.where(known, ahead.sum(axis=1), probabilities.shape[1])
