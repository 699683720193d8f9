"""Every setting of every job: typed, frozen, closed, with its default and its explanation in one place.

The command line, the YAML files in conf/ and the notebooks all build these classes. `--help` prints the descriptions.
A class is a section (`train`) and its fields are the settings (`train.epochs`). Each job has a module.
"""

from cnnlib.config.augmentation import AugmentSettings
from cnnlib.config.compare import ComparedValuesSettings, CompareSettings
from cnnlib.config.cost import CostImageSettings, CostSettings, DeviceSettings, ModelListSettings
from cnnlib.config.demo import DemoSettings
from cnnlib.config.doctor import DoctorDataSettings, DoctorOutputSettings, DoctorSettings
from cnnlib.config.evaluate import (
    Corruption,
    EvaluateSettings,
    EvaluationExtrasSettings,
    GateSettings,
    LabelledDataSettings,
    PromoteSettings,
    PromotionDataSettings,
)
from cnnlib.config.image_shape import ImageShapeDataSettings
from cnnlib.config.imagenet import ImagenetSettings
from cnnlib.config.ingest import (
    ImageSetOutputSettings,
    ImageSettings,
    IngestSettings,
    RejectsSettings,
    SplitSettings,
)
from cnnlib.config.model import ARCHITECTURE_NAMES, ModelSettings
from cnnlib.config.optimizer import OptimizerSettings, ScheduleSettings
from cnnlib.config.plan import NetworkSettings, PlanImageSettings, PlanSettings
from cnnlib.config.score import PredictionSettings, PredictionsOutputSettings, ScoreInputSettings, ScoreSettings
from cnnlib.config.settings import Settings, flatten, flatten_values
from cnnlib.config.show import ShowSettings
from cnnlib.config.sources import (
    AnySource,
    CifarSource,
    IdxSource,
    ImageFolderSource,
    ManifestSource,
    MnistSource,
    SourceFormat,
    SourceSettings,
    TableSource,
    WebdatasetSource,
    own_source_settings,
)
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
    "ARCHITECTURE_NAMES",
    "AnySource",
    "AugmentSettings",
    "CifarSource",
    "CompareSettings",
    "ComparedValuesSettings",
    "Corruption",
    "CostImageSettings",
    "CostSettings",
    "DataSettings",
    "DemoSettings",
    "DeviceSettings",
    "Distribution",
    "DoctorDataSettings",
    "DoctorOutputSettings",
    "DoctorSettings",
    "EvaluateSettings",
    "EvaluationExtrasSettings",
    "FitSettings",
    "GateSettings",
    "IdxSource",
    "ImageFolderSource",
    "ImageSetOutputSettings",
    "ImageSettings",
    "ImageShapeDataSettings",
    "ImagenetSettings",
    "IngestSettings",
    "LabelledDataSettings",
    "ManifestSource",
    "MnistSource",
    "ModelListSettings",
    "ModelSettings",
    "NetworkSettings",
    "OptimizerSettings",
    "PlanImageSettings",
    "PlanSettings",
    "PredictionSettings",
    "PredictionsOutputSettings",
    "PromoteSettings",
    "PromotionDataSettings",
    "RegisterSettings",
    "RejectsSettings",
    "ResultsSettings",
    "ScheduleSettings",
    "ScoreInputSettings",
    "ScoreSettings",
    "Settings",
    "ShowSettings",
    "SourceFormat",
    "SourceSettings",
    "SplitSettings",
    "StoreSettings",
    "StudySettings",
    "TableSource",
    "TrackingSettings",
    "TrainSettings",
    "TransferSettings",
    "TuneSettings",
    "VariedSettings",
    "WebdatasetSource",
    "flatten",
    "flatten_values",
    "own_source_settings",
]

# Imports neither TensorFlow nor MLflow: tests/unit/test_import_rules.py reads this.
LIGHT_BUT_FOR = ()
