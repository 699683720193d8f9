"""Make evaluations for the tests from counts."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cnnlib.evaluation.metrics import RELIABILITY_BINS, Confusion, reliability_of
from cnnlib.evaluation.result import Evaluation, Mistake
from cnnlib.predictions.contract import ScoredWith
from cnnlib.reports.page import thumbnail
from tests.unit.pictures import noise
from tests.unit.report_pages import HOSTILE, contents_of


def evaluation_of(
    classes: Sequence[str], counts: Sequence[Sequence[int]], *, of_set: int | None = None, **changes: Any
) -> Evaluation:
    """Make an evaluation with these counts. The first `of_set` classes are the image set's, the others the model's."""
    names = tuple(classes)
    images = contents_of(names[:of_set], [10] * len(names[:of_set]), test=[5] * len(names[:of_set])).image_set
    evaluation = Evaluation(
        model=ScoredWith("digits", "7", "a" * 64),
        image_set=images,
        split="test",
        confusion=Confusion(names, np.array(counts), np.zeros(len(names), int)),
        reliability=reliability_of({RELIABILITY_BINS - 1: (100, 0.97, 0.9), 7: (10, 0.5, 0.4)}),
        log_loss=0.25,
        top_5_accuracy=None,
    )
    return replace(evaluation, **changes)


def eventful_evaluation(classes: int = 6) -> Evaluation:
    """Make an evaluation with hostile names, failures, weak classes, costly corruptions and mistakes."""
    names = (HOSTILE, "$x^2$ {{ 7 * 7 }}", "猫", *(f"class {number}" for number in range(3, classes)))
    counts = np.eye(classes, dtype=int) * 50
    counts[0, 1:4] = (12, 9, 6)
    evaluation = evaluation_of(
        names,
        counts.tolist(),
        top_5_accuracy=0.99,
        robustness={"gaussian_noise": 0.5, "shift": 0.88},
        failed_by_code={"truncated": 2, "not_an_image": 1},
        mistakes=tuple(
            Mistake(f"{HOSTILE}/{number}.png", HOSTILE, "猫", 0.9876, 0.0001, thumbnail(noise(28, 28)[:, :, :1]))
            for number in range(3)
        ),
    )
    failed = np.zeros(classes, int)
    failed[1] = 3
    return replace(evaluation, confusion=replace(evaluation.confusion, failed=failed))
