"""The tables that compare and tune end with."""

from typing import TYPE_CHECKING

from rich.table import Table

from cnnlib.comparison import Comparison
from jobs.tables import pairs_table

if TYPE_CHECKING:  # it imports TensorFlow
    from pipelines.compare import Compared


def comparison_table(comparison: Comparison) -> Table:
    """How each value did, the best first: mean and sample standard deviation over its seeds."""
    metric = comparison.metric
    table = Table(title=f"comparison over {comparison.setting}", title_justify="left", caption_justify="left")
    table.add_column(comparison.setting, overflow="fold")
    for name in ("seeds", f"best {metric}", f"last {metric}", "seconds"):
        table.add_column(name, justify="right")
    for contender in comparison.ranking:
        table.add_row(
            contender.value,
            f"{len(contender.attempts)}",
            str(contender.best(metric, comparison.direction)),
            str(contender.last(metric)),
            f"{contender.seconds.mean:.1f}",
        )
    table.caption = "mean ± sample standard deviation (divisor n - 1) over the seeds; seconds of a training"
    return table


def compared_table(compared: "Compared") -> Table:
    """Where figure, table and run are."""
    table = pairs_table("kept")
    table.add_row("folder", str(compared.folder))
    table.add_row("run", compared.run_url)
    return table
