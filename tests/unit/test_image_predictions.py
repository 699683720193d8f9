"""Predictions of labelled images, row by row: classes by name, probabilities, ranks, errors, corruptions."""

import numpy as np
import pyarrow as pa

from cnnlib.evaluation.image_predictions import (
    ImagePredictionsPlan,
    all_classes,
    predict_labelled,
    predict_labelled_batch,
)
from cnnlib.image_set.contract import IMAGE_ID, LABEL, PATH
from cnnlib.image_set.writer import CONTENT
from cnnlib.sealed.frozen.images import ImageSpec, encode_png
from cnnlib.sealed.frozen.predict import Classifier, ModelCard
from pipelines.sources.source import counted

# The model's order differs from the set's. It lacks "cat" and has "emu".
SET_CLASSES = ("ant", "bee", "cat")
MODEL_CLASSES = ("emu", "bee", "ant")
CLASSES = ("ant", "bee", "cat", "emu")


class Shades(Classifier):
    """A classifier by brightness: dark is emu, middle is bee, bright is ant."""

    def __init__(self) -> None:
        self.card = ModelCard(ImageSpec(2, 2, 1), MODEL_CLASSES, "", "", "")

    def predict_pixels(self, images: np.ndarray) -> np.ndarray:
        shade = images.mean(axis=(1, 2, 3)) / 255
        table = {0: (0.7, 0.2, 0.1), 1: (0.25, 0.5, 0.25), 2: (0.1, 0.1, 0.8)}
        return np.array([table[min(2, int(3 * value))] for value in shade], np.float32).reshape(-1, 3)


def batch_of(*rows: tuple[int, int], contents: list[bytes] | None = None) -> pa.RecordBatch:
    """Make a batch of (shade, label) rows. Contents are raw arrays of the shade, unless others are given."""
    return pa.RecordBatch.from_pydict(
        {
            IMAGE_ID: [f"{number:064x}" for number in range(len(rows))],
            PATH: [f"{number}.png" for number in range(len(rows))],
            CONTENT: pa.array(contents or [bytes([shade] * 4) for shade, _ in rows], pa.binary()),
            LABEL: pa.array([label for _, label in rows], pa.int32()),
        }
    )


def test_classes_are_those_of_both_by_name():
    assert all_classes(SET_CLASSES, MODEL_CLASSES) == CLASSES


def test_labels_and_predictions_match_by_class_name():
    plan = ImagePredictionsPlan(CLASSES, (2, 2, 1), ())
    rows = predict_labelled_batch(plan, Shades(), batch_of((250, 0), (120, 0), (10, 1), (10, 2)))
    assert rows.schema == plan.schema
    assert rows["predicted"].to_pylist() == [0, 1, 3, 3]
    np.testing.assert_allclose(rows["probability"], [0.8, 0.5, 0.7, 0.7], atol=1e-6)
    # The probability of the true class, and the number of classes before it. Of equal ones, the first comes first.
    np.testing.assert_allclose(rows["label_probability"], [0.8, 0.25, 0.2, 0.0], atol=1e-6)
    assert rows["label_rank"].to_pylist() == [0, 2, 1, 3]
    assert rows["error"].to_pylist() == [None] * 4


def test_undecodable_image_has_its_label_and_an_error():
    sound = encode_png(np.full((2, 2, 1), 250, np.uint8))
    batch = batch_of((250, 0), (0, 1), (250, 0), contents=[sound, b"no image", sound])
    plan = ImagePredictionsPlan(CLASSES, None, ("brightness",))
    rows = predict_labelled_batch(plan, Shades(), batch)
    assert rows["predicted"].to_pylist() == [0, None, 0]
    assert rows["brightness"].to_pylist() == [0, None, 0]
    assert rows["label"].to_pylist() == [0, 1, 0]
    assert [error and error.split(":")[0] for error in rows["error"].to_pylist()] == [None, "not_an_image", None]


def test_batch_of_none_but_bad_images_passes():
    batch = batch_of((0, 1), contents=[b"no image"])
    rows = predict_labelled_batch(
        ImagePredictionsPlan(CLASSES, None, ("jpeg_compression", "gaussian_noise")), Shades(), batch
    )
    assert rows["predicted"].to_pylist() == [None]


def test_damage_is_done_to_the_pixels_that_the_model_sees():
    # Brightened by a tenth, the brightest of the dark shades becomes a middle one.
    plan = ImagePredictionsPlan(CLASSES, (2, 2, 1), ("brightness", "contrast"))
    rows = predict_labelled_batch(plan, Shades(), batch_of((80, 1), (10, 1)))
    assert rows["predicted"].to_pylist() == [3, 3]
    assert rows["brightness"].to_pylist() == [1, 3]
    assert rows["contrast"].to_pylist() == [3, 3]


def test_every_row_of_every_batch_comes_out_and_is_counted():
    done: list[int] = []
    plan = ImagePredictionsPlan(CLASSES, (2, 2, 1), ())
    batches = [batch_of((1, 0), (2, 1)), batch_of((3, 0)), batch_of()]
    given = list(predict_labelled(plan, Shades(), counted(batches, done.append)))
    assert [rows.num_rows for rows in given] == [2, 1]
    assert done == [2, 1, 0]
