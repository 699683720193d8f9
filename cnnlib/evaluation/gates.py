"""The gates that a challenger must pass before it becomes champion: one function per gate.

`pipelines/evaluate/gate_checks.py` calls them, and says how to add a gate.
"""

from dataclasses import dataclass

import numpy as np

from cnnlib.evaluation.metrics import mcnemar_better
from cnnlib.evaluation.result import Evaluation

# Far below what one image of any split changes. A loss of 20 in 200 images must not fail a limit of 0.1 because of the
# binary rounding of 0.1.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Gate:
    """A gate and its outcome.

    `asked` is the limit and `found` the result, both in words. `champion` and `challenger` are the figures that were
    compared, "" if the gate has none.
    """

    name: str
    asked: str
    champion: str
    challenger: str
    found: str
    passed: bool


def accuracy_gate(champion: Evaluation, challenger: Evaluation, max_loss: float) -> Gate:
    """Compare the accuracies on the same images."""
    old, new = champion.accuracy, challenger.accuracy
    return Gate(
        "accuracy",
        f"lower by at most {max_loss:g}",
        f"{old:.4f}",
        f"{new:.4f}",
        _difference(new - old),
        bool(old - new <= max_loss + _ROUNDING),
    )


def recall_gate(champion: Evaluation, challenger: Evaluation, max_loss: float) -> Gate:
    """Compare the recall of each class in the images. The class that lost most decides."""
    classes = challenger.image_set.classes
    old, new = (evaluation.confusion.recall[: len(classes)] for evaluation in (champion, challenger))
    support = challenger.confusion.support[: len(classes)]
    worst = int(np.where(support > 0, new - old, np.inf).argmin())
    images = int(support[worst])
    one_image = f", and one image is {1 / images:.4f}: too few for this limit" if 1 / images > max_loss > 0 else ""
    return Gate(
        "recall of each class",
        f"lower by at most {max_loss:g}",
        f"{old[worst]:.4f}",
        f"{new[worst]:.4f}",
        f"{_difference(float(new[worst] - old[worst]))}, class {classes[worst]}, which has {images:,} images"
        + one_image,
        bool(old[worst] - new[worst] <= max_loss + _ROUNDING),
    )


def better_gate(only_champion: int, only_challenger: int, level: float) -> Gate:
    """Apply McNemar's test to the images that only one of the two models has right."""
    chance = mcnemar_better(only_champion, only_challenger)
    return Gate(
        "better",
        f"by McNemar's test, p at most {level:g}",
        f"{only_champion:,} right alone",
        f"{only_challenger:,} right alone",
        f"p = {chance:.4g}",
        chance <= level,
    )


def parity_gate(difference: float | None, most: float) -> Gate:
    """Compare the registered model with the trained one. `difference` is None if the training left no checkpoint."""
    return Gate(
        "parity",
        f"probabilities differ by at most {most:g}",
        "",
        "registered model against checkpoint" if difference is not None else "",
        "its run has no checkpoint to compare with" if difference is None else f"differ by {difference:.2g}",
        difference is not None and difference <= most,
    )


def speed_gate(champion: float, challenger: float, ratio: float, least: float) -> Gate:
    """Compare speeds in images/s. `ratio` is the challenger's speed divided by the champion's."""
    return Gate(
        "speed",
        f"at least {least:g} of the champion's",
        f"{champion:,.0f} images/s",
        f"{challenger:,.0f} images/s",
        f"{ratio:.2f} of the champion's",
        ratio >= least,
    )


def _difference(value: float) -> str:
    """Say in words by how much a figure changed.

    >>> _difference(0.012), _difference(-0.5), _difference(0.0)
    ('higher by 0.0120', 'lower by 0.5000', 'equal')
    """
    if value == 0:
        return "equal"
    return f"{'higher' if value > 0 else 'lower'} by {abs(value):.4f}"
