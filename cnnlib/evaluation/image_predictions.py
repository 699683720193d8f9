"""What a model makes of images whose classes are known: a row an image, from which Spark counts.

Plain Python without Spark: `pipelines.evaluate.image_predictions` runs `predict_labelled` in its tasks.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cnnlib.evaluation.corruptions import CORRUPTIONS
from cnnlib.image_set.contract import IMAGE_ID, LABEL, PATH
from cnnlib.predictions.score_batch import PIXEL_BYTES, pixels_of, places_of
from cnnlib.sealed.frozen.predict import ERROR, PROBABILITY, Classifier

PREDICTED = "predicted"
LABEL_PROBABILITY = "label_probability"
LABEL_RANK = "label_rank"


@dataclass(frozen=True)
class ImagePredictionsPlan:
    """What every task has in common.

    `classes` are those of the image set, then those that only the model knows; labels count in them. `raw_shape` as in
    `scoring.ScorePlan`; `corruptions` are names of `corruptions.CORRUPTIONS`.
    """

    classes: tuple[str, ...]
    raw_shape: tuple[int, int, int] | None
    corruptions: tuple[str, ...]

    @property
    def schema(self) -> pa.Schema:
        """A row an image.

        Its label, the predicted one, the probabilities of both, and how many classes the model takes to be likelier
        than the true one; with an error, all but the label are null. A column a corruption has what is predicted then.
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
    """`ImagePredictionsPlan.classes`.

    >>> all_classes(["cat", "dog"], ["dog", "emu", "cat"])
    ('cat', 'dog', 'emu')
    """
    return tuple(dict.fromkeys([*of_set, *of_model]))


def predict_labelled(
    plan: ImagePredictionsPlan, classifier: Classifier, batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Rows of `plan.schema` for batches with IMAGE_ID, PATH, CONTENT and LABEL."""
    most = max(1, PIXEL_BYTES // classifier.card.image.size_bytes)
    for batch in batches:
        for start in range(0, batch.num_rows, most):
            yield predict_labelled_batch(plan, classifier, batch.slice(start, most))


def predict_labelled_batch(plan: ImagePredictionsPlan, classifier: Classifier, batch: pa.RecordBatch) -> pa.RecordBatch:
    """Rows of `plan.schema` for one batch."""
    pixels, errors = pixels_of(batch, plan.raw_shape, classifier)
    place = places_of(errors)
    usable = place.is_valid()
    # Of each class of the model its place among all, and the other way round.
    number_of = {name: number for number, name in enumerate(plan.classes)}
    ours = np.array([number_of[name] for name in classifier.card.classes], np.int32)
    theirs = np.full(len(plan.classes), -1, np.int32)
    theirs[ours] = np.arange(len(ours))

    probabilities = classifier.predict_pixels(pixels)
    labels = theirs[batch.column(LABEL).filter(usable).to_numpy()]
    of_label, rank = _of_labels(probabilities, labels)
    columns = {
        **{name: batch.column(name) for name in (IMAGE_ID, PATH, LABEL)},
        PREDICTED: pa.array(ours[probabilities.argmax(axis=1)]).take(place),
        PROBABILITY: pa.array(probabilities.max(axis=1), pa.float64()).take(place),
        LABEL_PROBABILITY: pa.array(of_label, pa.float64()).take(place),
        LABEL_RANK: pa.array(rank, pa.int32()).take(place),
        ERROR: pa.array(errors, pa.string()),
    }
    image_ids = batch.column(IMAGE_ID).filter(usable).to_pylist()
    for name in plan.corruptions:
        damaged = CORRUPTIONS[name](pixels, image_ids) if len(pixels) else pixels
        columns[name] = pa.array(ours[classifier.predict_pixels(damaged).argmax(axis=1)]).take(place)
    return pa.RecordBatch.from_arrays([columns[name] for name in plan.schema.names], schema=plan.schema)


def _of_labels(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(probability, rank) of each row's label (rows,) int; of equals the first ranks first, as in argmax.

    A label of -1, which the model does not know, has probability 0 and the last rank.

    >>> _of_labels(np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]]), np.array([2, 1]))
    (array([0.3, 0.4]), array([1, 1]))
    """
    rows = np.arange(len(labels))
    known = labels >= 0
    of_label = np.where(known, probabilities[rows, labels], 0.0)
    earlier = np.arange(probabilities.shape[1]) < labels[:, None]
    likelier = (probabilities > of_label[:, None]) | ((probabilities == of_label[:, None]) & earlier)
    return of_label, np.where(known, likelier.sum(axis=1), probabilities.shape[1])
