"""The settings of every job, found by walking its classes."""

from pydantic.fields import FieldInfo

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

JOBS: dict[str, type[Settings]] = {
    "ingest": IngestSettings,
    "train": TrainSettings,
    "compare": CompareSettings,
    "tune": TuneSettings,
    "score": ScoreSettings,
    "evaluate": EvaluateSettings,
    "promote": PromoteSettings,
    "demo": DemoSettings,
    "doctor": DoctorSettings,
    "plan": PlanSettings,
    "models": ModelListSettings,
    "cost": CostSettings,
    "show": ShowSettings,
    "imagenet": ImagenetSettings,
}


def fields_of(kind: type[Settings], prefix: str = "") -> dict[str, FieldInfo]:
    """Every setting, however deep, under its dotted name; sections are walked, not given."""
    found = {}
    for name, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            found |= fields_of(field.annotation, f"{prefix}{name}.")
        else:
            found[prefix + name] = field
    return found
