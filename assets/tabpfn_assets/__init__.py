"""Assets: what is made. Frozen records that every engine can store, read and compare.

Pure: no I/O, no clock, no engine. The verbs that make them live in `tabpfn_operators`.
"""

from tabpfn_assets.evaluation import Check, Comparison, Curve, Decision, Evaluation, Interval
from tabpfn_assets.fitted_model import FittedModel, FitTimings
from tabpfn_assets.job import FitStatus, JobRecord
from tabpfn_assets.names import Name, Task, public_url
from tabpfn_assets.parameters import FitParameters, Thinking
from tabpfn_assets.prediction_set import PredictionSet, redact_columns
from tabpfn_assets.run import EngineRun
from tabpfn_assets.scoring import PartFile, Resend, ScoredShard, ScoringManifest
from tabpfn_assets.scoring_plan import ScoringPlan
from tabpfn_assets.sets import ClassLabel, Feature, SourceRef, TestSet, TrainSet

__version__ = "0.1.0"

__all__ = [
    "Check",
    "ClassLabel",
    "Comparison",
    "Curve",
    "Decision",
    "EngineRun",
    "Evaluation",
    "Feature",
    "FitParameters",
    "FitStatus",
    "FitTimings",
    "FittedModel",
    "Interval",
    "JobRecord",
    "Name",
    "PartFile",
    "PredictionSet",
    "Resend",
    "ScoredShard",
    "ScoringManifest",
    "ScoringPlan",
    "SourceRef",
    "Task",
    "TestSet",
    "Thinking",
    "TrainSet",
    "__version__",
    "public_url",
    "redact_columns",
]
