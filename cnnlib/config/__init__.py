"""Every setting of every job: typed, frozen, closed, with its default and its explanation in one place.

The command line, the YAML files in conf/ and the notebooks all build these classes; `--help` prints their descriptions.
A class is a section (`train`), a field of it a setting (`train.epochs`); a module has those of one job.
"""

from cnnlib.config.augmentation import AugmentSettings
from cnnlib.config.compare import ComparedValuesSettings, CompareSettings
from cnnlib.config.cost import CostImageSettings, CostSettings, DeviceSettings, ModelListSettings
from cnnlib.config.demo import DemoSettings
from cnnlib.config.evaluate import (
    Corruption,
    EvaluateSettings,
    EvaluationExtrasSettings,
    GateSettings,
    LabelledDataSettings,
    PromoteSettings,
    PromotionDataSettings,
)
from cnnlib.config.imagenet import ImagenetSettings
from cnnlib.config.ingest import (
    ImageSetOutputSettings,
    ImageSettings,
    IngestSettings,
    RejectsSettings,
    SourceFormat,
    SourceSettings,
    SplitSettings,
)
from cnnlib.config.model import ARCHITECTURE_NAMES, ModelSettings
from cnnlib.config.optimizer import OptimizerSettings, ScheduleSettings
from cnnlib.config.preflight import (
    DoctorDataSettings,
    DoctorOutputSettings,
    DoctorSettings,
    NetworkSettings,
    PlanDataSettings,
    PlanImageSettings,
    PlanSettings,
)
from cnnlib.config.score import PredictionSettings, PredictionsOutputSettings, ScoreInputSettings, ScoreSettings
from cnnlib.config.settings import Settings, flatten, flatten_values
from cnnlib.config.show import ShowSettings
from cnnlib.config.space import Distribution
from cnnlib.config.tracking import StoreSettings, TrackingSettings
from cnnlib.config.train import (
    DataSettings,
    FitSettings,
    RegisterSettings,
    TrainSettings,
    TransferSettings,
)
from cnnlib.config.tune import StudySettings, TuneSettings
from cnnlib.config.varied import ResultsSettings, VariedSettings

__all__ = [
    "AugmentSettings",
    "CompareSettings",
    "ComparedValuesSettings",
    "Distribution",
    "ResultsSettings",
    "StudySettings",
    "TuneSettings",
    "VariedSettings",
    "CostImageSettings",
    "CostSettings",
    "DeviceSettings",
    "ModelListSettings",
    "ARCHITECTURE_NAMES",
    "Corruption",
    "DataSettings",
    "DemoSettings",
    "DoctorDataSettings",
    "DoctorOutputSettings",
    "DoctorSettings",
    "EvaluateSettings",
    "LabelledDataSettings",
    "EvaluationExtrasSettings",
    "FitSettings",
    "GateSettings",
    "ImageSetOutputSettings",
    "ImageSettings",
    "IngestSettings",
    "ModelSettings",
    "NetworkSettings",
    "OptimizerSettings",
    "PlanDataSettings",
    "PlanImageSettings",
    "PlanSettings",
    "PredictionsOutputSettings",
    "ImagenetSettings",
    "PromoteSettings",
    "PromotionDataSettings",
    "RegisterSettings",
    "RejectsSettings",
    "ScheduleSettings",
    "ScoreInputSettings",
    "ScoreSettings",
    "PredictionSettings",
    "Settings",
    "ShowSettings",
    "SourceFormat",
    "SourceSettings",
    "SplitSettings",
    "StoreSettings",
    "TrackingSettings",
    "TrainSettings",
    "TransferSettings",
    "flatten",
    "flatten_values",
]

# Imports neither TensorFlow nor MLflow: tests/unit/test_import_rules.py reads this.
LIGHT_BUT_FOR = ()
