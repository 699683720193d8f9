"""report.html of an evaluation: how good a model is, on one page."""

from collections.abc import Mapping, Sequence
from typing import Any

from cnnlib.evaluation.gates import Gate
from cnnlib.evaluation.result import Evaluation
from cnnlib.reports.page import render_page, settings_as_text, thumbnail_scale

MOST_CONFUSED = 12
# The page begins with notes on classes whose recall is this far below the accuracy, on corruptions that cost this much
# accuracy, and on a calibration error above the second limit.
WEAK = 0.1
UNRELIABLE = 0.05


def render_evaluation(
    evaluation: Evaluation,
    figures: Mapping[str, bytes],
    settings: Mapping[str, Any],
    gates: Sequence[Gate] = (),
) -> str:
    """Render the whole page as HTML. `figures` are SVG files by name. `gates` are those of a promotion, if any."""
    confusion = evaluation.confusion
    columns = (confusion.classes, confusion.support, confusion.precision, confusion.recall, confusion.f1)
    classes = [row for row in zip(*columns, strict=True) if row[1] or row[0] in evaluation.image_set.classes]
    height, width, _ = evaluation.image_set.image.shape
    low = evaluation.accuracy - WEAK
    return render_page(
        "evaluation.html",
        evaluation=evaluation,
        metrics=evaluation.metrics(),
        classes=classes,
        weak=[(name, recall) for name, images, _, recall, _ in classes if images and recall < low],
        fragile=[(name, accuracy) for name, accuracy in evaluation.robustness.items() if accuracy < low],
        confused=[
            (confusion.classes[true], confusion.classes[predicted], images, confusion.support[true])
            for true, predicted, images in confusion.most_confused(MOST_CONFUSED)
        ],
        gates=gates,
        figures=figures,
        mistake_height=round(height * thumbnail_scale(height, width)),
        enlarged=thumbnail_scale(height, width) > 1,
        settings=settings_as_text(settings),
        UNRELIABLE=UNRELIABLE,
    )
