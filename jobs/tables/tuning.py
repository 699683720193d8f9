"""The tables of compare and tune."""

from typing import TYPE_CHECKING

from rich.table import Table

from cnnlib.tuning.comparison import Comparison
from jobs.tables.layout import pairs_table

if TYPE_CHECKING:  # imports TensorFlow
    from pipelines.tune.compare import Compared
    from pipelines.tune.flow import Tuned

# trials.csv has all of them.
TRIALS_SHOWN = 20


def comparison_table(comparison: Comparison) -> Table:
    """Return a row per value, the best first: mean and sample standard deviation over its seeds."""
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
    table.caption = "mean ± sample standard deviation (divisor n - 1) over the seeds; seconds per training"
    return table


def compared_table(compared: "Compared") -> Table:
    """Return where the files and the run are."""
    table = pairs_table("kept")
    table.add_row("folder", str(compared.folder))
    table.add_row("run", compared.run_url)
    return table


def trials_table(tuned: "Tuned") -> Table:
    """Return a row per trial of a study, the best first."""
    table = Table(title="trials, the best first", title_justify="left", caption_justify="left")
    names = list(dict.fromkeys(name for trial in tuned.trials for name in trial.settings))
    for name in ("trial", tuned.metric, "epochs", "seconds"):
        table.add_column(name, justify="right")
    for name in ("state", *names):
        table.add_column(name, overflow="fold")
    for trial in tuned.trials[:TRIALS_SHOWN]:
        value = "" if trial.value is None else f"{trial.value:.4f}"
        values = [_short(trial.settings.get(name, "")) for name in names]
        table.add_row(f"{trial.number}", value, f"{trial.epochs}", f"{trial.seconds:.1f}", trial.state, *values)
    failed = next((trial for trial in tuned.trials if trial.error), None)
    if failed is not None:
        table.caption = f"trial {failed.number} failed: {failed.error}"
    return table


def tuned_table(tuned: "Tuned") -> Table:
    """Return the counts of a study, the importance of each setting, and where the best settings are."""
    table = pairs_table("study")
    counts = {state: sum(trial.state == state for trial in tuned.trials) for state in ("complete", "pruned", "failed")}
    sum_of_states = " + ".join(f"{count} {state}" for state, count in counts.items())
    table.add_row("trials", f"{len(tuned.trials)} = {sum_of_states}")
    table.add_row(f"best {tuned.metric}", f"{tuned.trials[0].value:.4f}, trial {tuned.trials[0].number}")
    if tuned.importances:
        importances = sorted(tuned.importances.items(), key=lambda pair: -pair[1])
        table.add_row("importance", ", ".join(f"{name} {fraction:.2f}" for name, fraction in importances))
    else:
        table.add_row("importance", "not known; it needs two complete trials with different values")
    table.add_row("best settings", f"{tuned.folder}/best.yaml")
    table.add_row("run", tuned.run_url)
    return table


def _short(value: object) -> str:
    """Return a value with four significant digits.

    >>> _short(0.00123456789), _short("adam"), _short(8)
    ('0.001235', 'adam', '8')
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)
