"""What a challenger must show before it becomes champion: each gate, what was found, and by how much it was missed."""

from dataclasses import dataclass

from cnnlib.evaluation.metrics import mcnemar_better
from cnnlib.evaluation.result import Evaluation

# Far below what one image of any split is; a loss of 20 in 200 must not fail for being 0.1 and a bit.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Gate:
    """A gate: `asked` and `found` in words, and the figures of both where it compares the two."""

    name: str
    asked: str
    champion: str
    challenger: str
    found: str
    passed: bool


def accuracy_gate(champion: Evaluation, challenger: Evaluation, max_loss: float) -> Gate:
    """The accuracy on the same images."""
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
    """The recall of each class that the images have: the one that has lost most decides."""
    classes = [name for name, images in zip(challenger.image_set.classes, challenger.confusion.support, strict=False)]
    old, new = (evaluation.confusion.recall[: len(classes)] for evaluation in (champion, challenger))
    worst = int((new - old).argmin())
    return Gate(
        "recall of each class",
        f"lower by at most {max_loss:g}",
        f"{old[worst]:.4f}",
        f"{new[worst]:.4f}",
        f"{_difference(float(new[worst] - old[worst]))}, class {classes[worst]}",
        bool(old[worst] - new[worst] <= max_loss + _ROUNDING),
    )


def better_gate(only_champion: int, only_challenger: int, level: float) -> Gate:
    """McNemar's test on the images that one of the two alone has right."""
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
    """The registered model against the trained one; None where the training has left nothing to compare with."""
    return Gate(
        "parity",
        f"probabilities differ by at most {most:g}",
        "",
        "registered as trained" if difference is not None else "",
        "its run has no checkpoint to compare with" if difference is None else f"differ by {difference:.2g}",
        difference is not None and difference <= most,
    )


def speed_gate(champion: float, challenger: float, ratio: float, least: float) -> Gate:
    """Images/s, and the challenger's as a share of the champion's."""
    return Gate(
        "speed",
        f"at least {least:g} of the champion's",
        f"{champion:,.0f} images/s",
        f"{challenger:,.0f} images/s",
        f"{ratio:.2f} of it",
        ratio >= least,
    )


def _difference(value: float) -> str:
    """
    >>> _difference(0.012), _difference(-0.5), _difference(0.0)
    ('higher by 0.0120', 'lower by 0.5000', 'equal')
    """
    if value == 0:
        return "equal"
    return f"{'higher' if value > 0 else 'lower'} by {abs(value):.4f}"
