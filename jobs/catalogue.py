"""Every job, said once: its name, its settings, and the function that runs it and prints its tables.

`sparkcnn`, the files that spark-submit takes (`jobs/ingest.py` and so on), `--help` and the tests read this table.
Spark, TensorFlow and MLflow take seconds to import, and doctor must run where they are broken. So each function here
imports what it needs only when it runs.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cnnlib.config import (
    CompareSettings,
    CostSettings,
    DemoSettings,
    DoctorSettings,
    EvaluateSettings,
    ImagenetSettings,
    IngestSettings,
    ModelListSettings,
    PlanSettings,
    PromoteSettings,
    ScoreSettings,
    Settings,
    ShowSettings,
    TrainSettings,
    TuneSettings,
)
from jobs.early_checks import check_evaluate, check_ingest, check_score, check_train, check_trainings
from jobs.exit_status import exit_without_waiting

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SettingsClass = TypeVar("SettingsClass", bound=Settings)


@dataclass(frozen=True)
class Job(Generic[SettingsClass]):
    """A job of the command line.

    `run` does the work and prints the tables. It raises SparkcnnError if the job fails. `config_file` is a file in
    conf/ that the job reads if `--config` is not given.

    >>> JOBS["train"].summary
    'Train a CNN on an image set, track it in MLflow, and register the best epoch.'
    """

    name: str
    settings: type[SettingsClass]
    run: Callable[[SettingsClass], None]
    config_file: str | None = None

    @property
    def summary(self) -> str:
        """What the job does: the first line of its settings' docstring, which also begins its own --help."""
        return (self.settings.__doc__ or "").partition("\n")[0]


def _ingest(settings: IngestSettings) -> None:
    from jobs.tables.layout import show
    from jobs.tables.pipeline import image_set_table
    from pipelines.ingest import ingest

    check_ingest(settings)
    with _spark("ingest") as spark:
        show(image_set_table(ingest(spark, settings)))


def _train(settings: TrainSettings) -> None:
    check_train(settings)
    _import_tensorflow()
    from jobs.tables.layout import show
    from jobs.tables.pipeline import rate_table, training_table
    from pipelines.train import train
    from pipelines.train.find_rate import find_rate

    with _spark("train") as spark:
        if settings.train.find_rate:
            show(rate_table(find_rate(spark, settings)))
        else:
            show(training_table(train(spark, settings), settings))


def _compare(settings: CompareSettings) -> None:
    check_trainings(settings)
    _import_tensorflow()
    from jobs.tables.layout import show
    from jobs.tables.tuning import compared_table, comparison_table
    from pipelines.tune.compare import compare

    with _spark("compare") as spark:
        compared = compare(spark, settings)
    show(comparison_table(compared.comparison), compared_table(compared))


def _tune(settings: TuneSettings) -> None:
    check_trainings(settings)
    _import_tensorflow()
    from jobs.tables.layout import show
    from jobs.tables.tuning import trials_table, tuned_table
    from pipelines.tune import tune

    with _spark("tune") as spark:
        tuned = tune(spark, settings)
    show(trials_table(tuned), tuned_table(tuned))


def _score(settings: ScoreSettings) -> None:
    from cnnlib.predictions.contract import IncompleteError
    from jobs.tables.layout import show
    from jobs.tables.pipeline import scoring_tables
    from pipelines.score import score

    check_score(settings)
    try:
        with _spark("score") as spark:
            predictions = score(spark, settings)
    except IncompleteError as error:
        # The predictions are there. Only too many rows have none.
        show(*scoring_tables(error.predictions))
        raise
    show(*scoring_tables(predictions))


def _evaluate(settings: EvaluateSettings) -> None:
    from jobs.tables.evaluation import classes_table, evaluation_table
    from jobs.tables.layout import show
    from pipelines.evaluate import evaluate

    check_evaluate(settings)
    with _spark("evaluate") as spark:
        evaluated = evaluate(spark, settings)
    show(classes_table(evaluated.evaluation), evaluation_table(evaluated))


def _promote(settings: PromoteSettings) -> None:
    from jobs.tables.evaluation import gates_table, promotion_table
    from jobs.tables.layout import show
    from pipelines.evaluate.promote import promote, roll_back

    if settings.rollback:  # needs no Spark
        show(promotion_table(roll_back(settings)))
        return
    check_evaluate(settings)
    with _spark("promote") as spark:
        promotion = promote(spark, settings)
    show(gates_table(promotion.gates), promotion_table(promotion))
    promotion.check()


def _demo(settings: DemoSettings) -> None:
    _import_tensorflow()
    from jobs.tables.layout import show
    from jobs.tables.pipeline import demo_table
    from pipelines.demo import demo

    with _spark("demo") as spark:
        result = demo(spark, settings)
    show(demo_table(result))
    result.check(settings.min_test_accuracy)


def _doctor(settings: DoctorSettings) -> None:
    from rich.console import Console

    from jobs.tables.doctor import findings_table
    from jobs.tables.layout import show
    from pipelines.doctor.flow import examine

    with Console(stderr=True).status("checking …") as status:
        examination = examine(settings, on_check=lambda name: status.update(f"checking {name} …"))
    show(findings_table(examination.findings))
    if examination.unfinished:
        exit_without_waiting("doctor", examination.refuse_problems)
    examination.refuse_problems()


def _plan(settings: PlanSettings) -> None:
    _import_tensorflow()
    from jobs.tables.plan import show_plan
    from pipelines.doctor.plan import plan_scaling

    show_plan(plan_scaling(settings))


def _models(settings: ModelListSettings) -> None:
    _import_tensorflow()
    from jobs.tables.cost import architectures_table
    from jobs.tables.layout import show
    from pipelines.cost import architecture_costs

    # Measuring is slow, but the table needs all rows before its columns can be sized.
    show(architectures_table(list(architecture_costs(settings))))


def _cost(settings: CostSettings) -> None:
    _import_tensorflow()
    from jobs.tables.cost import show_cost
    from pipelines.cost import cost_of

    show_cost(cost_of(settings), settings)


def _show(settings: ShowSettings) -> None:
    _import_tensorflow()
    from pipelines.show import show_batch

    print(f"written: {show_batch(settings)}")


def _imagenet(settings: ImagenetSettings) -> None:
    _import_tensorflow()
    from jobs.tables.layout import show
    from jobs.tables.pipeline import imagenet_table
    from pipelines.train.imagenet import register_imagenet

    show(imagenet_table(register_imagenet(settings), settings.register))


def _spark(job: str) -> "AbstractContextManager[SparkSession]":
    from pipelines.spark.session import job_session

    return job_session(f"sparkcnn {job}")


def _import_tensorflow() -> None:
    """Import TensorFlow before anything else does, because other imports would let it print its notes."""
    from cnnlib.quiet import import_tensorflow_quietly

    import_tensorflow_quietly()


_JOBS: tuple[Job[Any], ...] = (
    Job("ingest", IngestSettings, _ingest),
    Job("train", TrainSettings, _train),
    Job("compare", CompareSettings, _compare),
    Job("tune", TuneSettings, _tune),
    Job("score", ScoreSettings, _score),
    Job("evaluate", EvaluateSettings, _evaluate),
    Job("promote", PromoteSettings, _promote),
    Job("demo", DemoSettings, _demo, config_file="demo.yaml"),
    Job("doctor", DoctorSettings, _doctor),
    Job("plan", PlanSettings, _plan),
    Job("models", ModelListSettings, _models),
    Job("cost", CostSettings, _cost),
    Job("show", ShowSettings, _show),
    Job("imagenet", ImagenetSettings, _imagenet),
)
JOBS: dict[str, Job[Any]] = {job.name: job for job in _JOBS}
