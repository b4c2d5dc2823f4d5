"""How good a model is on a holdout: `Client.evaluate`, and `evaluate_scores` for predictions made already.

Importing this package loads neither scikit-learn nor NumPy.
"""

from tabpfn_operators.evaluation._metrics_table import DEFAULT_HEADLINE, HIGHER_IS_BETTER, METRICS, improvement
from tabpfn_operators.evaluation._report import render_png, render_report
from tabpfn_operators.evaluation._scoring import Predicted, evaluate_scores

__all__ = [
    "DEFAULT_HEADLINE",
    "HIGHER_IS_BETTER",
    "METRICS",
    "Predicted",
    "evaluate_scores",
    "improvement",
    "render_png",
    "render_report",
]
