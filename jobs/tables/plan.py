"""The tables of plan."""

from typing import TYPE_CHECKING

from rich.constrain import Constrain
from rich.table import Table
from rich.text import Text

from cnnlib.training.scaling import MXNET_IMAGES_PER_SECOND, MXNET_QUOTED, published_efficiency
from jobs.tables.layout import pairs_table, show

if TYPE_CHECKING:  # imports TensorFlow
    from pipelines.doctor.plan import Plan

_FORMULA = (
    "2(p-1)·latency + 2(p-1)/p·message/bandwidth: a ring all-reduce over p workers "
    "(Thakur, Rabenseifner and Gropp 2005; Patarasu and Yuan 2009)"
)
_NOTES = (
    "expected: step / (step + all-reduce), because sparkcnn sends one message after the backward pass. at best: if the "
    "exchange ran during the whole backward pass, which is 2/3 of the step. Neither counts stragglers.\n"
    "published: MXNet on up to 16 machines with 16 K80 GPUs each and 20 Gbit/s. First the round figures that are "
    f"quoted, then in brackets the measurements of {', '.join(MXNET_IMAGES_PER_SECOND)} (apache/mxnet, "
    "example/image-classification/README.md, commit 2829115, 2016)."
)
_NOTES_WIDTH = 120


def show_plan(plan: "Plan") -> None:
    """Print the inputs of a plan, the efficiency that it expects, and notes."""
    show(_inputs_table(plan), _scaling_table(plan), Constrain(Text(_NOTES), _NOTES_WIDTH))


def _inputs_table(plan: "Plan") -> Table:
    height, width, channels = plan.image_shape
    network = plan.settings.network
    table = pairs_table("sparkcnn plan")
    table.add_row("model", f"{plan.model.name} for {height} x {width} x {channels} images, {plan.classes} classes")
    table.add_row("message", f"{plan.message_bytes / 1e6:,.1f} MB per step: {plan.parameters:,} gradients, float32")
    table.add_row("step", f"{_time(plan.step_seconds)} for {plan.worker_batch_size} images: {plan.source}")
    table.add_row("network", f"{network.latency_us:g} us latency, {network.bandwidth_gbit:g} Gbit/s per worker")
    table.add_row("all-reduce", _FORMULA)
    return table


def _scaling_table(plan: "Plan") -> Table:
    table = Table(title="efficiency", title_justify="left")
    for heading in ("workers", "all-reduce", "images/s", "expected", "at best", "published"):
        table.add_column(heading, justify="right", no_wrap=True)
    for scaling in plan.scalings:
        table.add_row(
            f"{scaling.workers:,}",
            _time(scaling.all_reduce_seconds),
            f"{scaling.images_per_second:,.0f}",
            f"{scaling.efficiency:.0%}",
            f"{scaling.overlapped_efficiency:.0%}",
            _published(scaling.workers),
        )
    return table


def _published(gpus: int) -> str:
    """Return the published efficiency for a number of GPUs.

    >>> _published(256), _published(64), _published(3)
    ('88% (86, 90, 53%)', '(91, 92, 54%)', '')
    """
    measured = [published_efficiency(model, gpus) for model in MXNET_IMAGES_PER_SECOND]
    quoted = f"{MXNET_QUOTED[gpus]:.0%} " if gpus in MXNET_QUOTED else ""
    known = [f"{100 * value:.0f}" for value in measured if value is not None]
    return f"{quoted}({', '.join(known)}%)" if known else ""


def _time(seconds: float) -> str:
    """Return a time in a suitable unit.

    >>> _time(0.0004), _time(0.0213), _time(2.5)
    ('0.4 ms', '21.3 ms', '2.5 s')
    """
    return f"{seconds:,.1f} s" if seconds >= 1 else f"{1000 * seconds:.1f} ms"
